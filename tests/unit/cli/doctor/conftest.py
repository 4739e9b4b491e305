"""Small applications, which are written, imported and examined."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from textwrap import dedent

import pytest

from madcrow_events import madcrow_signals
from madcrow_events.cli._application import INSPECT
from madcrow_events.cli._doctor import Examination, Finding, FindingKind, examine
from support.plugins import Install, install_plugin

HEAD = """
from madcrow_events import *
from madcrow_events import madcrow_signals as signals
"""

numbers = itertools.count()


class Examined:
    """An application that was examined.

    Attributes:
        name: the name of its package.
        record: what was found.
    """

    def __init__(self, name: str, record: Examination) -> None:
        self.name = name
        self.record = record

    @property
    def kinds(self) -> set[FindingKind]:
        return {it["kind"] for it in self.record["findings"]}

    def of(self, kind: FindingKind) -> list[Finding]:
        return [it for it in self.record["findings"] if it["kind"] == kind]

    def subjects(self, kind: FindingKind) -> list[str]:
        return [it["subject"].replace(self.name, "app") for it in self.of(kind)]

    def lines(self, kind: FindingKind) -> list[str]:
        """The lines of the source that the findings of a kind are for."""
        return [
            Path(str(it["file"])).read_text().splitlines()[(it["line"] or 0) - 1].strip()
            for it in self.of(kind)
        ]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return what installs a plugin."""
    for variable in ("DISABLE_PLUGINS", "PLUGINS_DENY", "PLUGINS_ALLOW"):
        monkeypatch.delenv(f"MADCROW_EVENTS_{variable}", raising=False)
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    before = set(sys.modules)
    yield partial(install_plugin, site)
    for module in set(sys.modules) - before:
        del sys.modules[module]


ExamineApp = Callable[..., Examined]


@pytest.fixture
def examine_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ExamineApp]:
    """Return what writes a package of modules, whose name is `app` in them, and examines it."""
    monkeypatch.setenv(INSPECT, "1")
    monkeypatch.delenv("MADCROW_EVENTS_PLUGINS_ALLOW", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def examine_sources(
        source: str, attribute: str = "", *, with_plugins: bool = False, **others: str
    ) -> Examined:
        name = f"app{next(numbers)}"
        folder = tmp_path / name
        folder.mkdir()
        for module, text in {"__init__": source, **others}.items():
            written = HEAD + re.sub(r"\bapp\b", name, dedent(text))
            (folder / f"{module}.py").write_text(written, encoding="utf-8")
        record = examine(f"{name}{attribute}", str(tmp_path), with_plugins=with_plugins)
        return Examined(name, record)

    with madcrow_signals.isolated(empty=True):
        yield examine_sources
    for name in set(sys.modules) - before:
        if name.startswith("app"):
            del sys.modules[name]
