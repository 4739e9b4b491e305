"""A user, and a package for the modules of an example."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace
from uuid import UUID

import pytest

from support.reference import EMAIL


@pytest.fixture
def user():
    return SimpleNamespace(id=UUID(int=7), email=EMAIL, name="Ada")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that writes the modules of a package `app_events`, and then imports one."""

    def write(modules):
        for name, text in {"__init__.py": "", **modules}.items():
            path = tmp_path / "app_events" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        return lambda module: importlib.import_module(f"app_events.{module}")

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "app_events"]:
        del sys.modules[name]
