"""Distributions with plugins, for the length of a test."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.plugins import Install


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    monkeypatch.syspath_prepend(str(tmp_path))
    for variable in ("DISABLE_PLUGINS", "PLUGINS_DENY", "PLUGINS_ALLOW"):
        monkeypatch.delenv(f"MADCROW_EVENTS_{variable}", raising=False)
    before = set(sys.modules)

    def install(
        name: str, source: str, *, entry_point: str = "", value: str = "", requires: str = ""
    ) -> None:
        module = name.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        folder = tmp_path / f"{module}-1.2.dist-info"
        folder.mkdir()
        needs = "".join(f"Requires-Dist: {it}\n" for it in requires.splitlines())
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n{needs}"
        )
        (folder / "entry_points.txt").write_text(
            f"[madcrow_events.handlers]\n{entry_point or module} = {value or f'{module}:group'}\n"
        )

    yield install
    for module in set(sys.modules) - before:
        del sys.modules[module]
