"""Importing the package does nothing that its user did not ask for, and loads little."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import madcrow_events

PACKAGE = Path(madcrow_events.__file__).parent
LOADED_WHEN_NEEDED = {"asyncio", "concurrent.futures", "difflib", "importlib.metadata"}
OURS_LOADED_WHEN_NEEDED = {
    "madcrow_events.catalog",
    "madcrow_events.emissions._async_loop",
    "madcrow_events.emissions._unfinished",
}
EXTRAS = {
    "bridge": {"sqlalchemy"},
    "_nats": {"faststream", "nats", "sqlalchemy"},
    "_nats_receiver": {"nats"},
    "_rabbit": {"aio_pika", "faststream", "sqlalchemy"},
    "_redis": {"faststream", "redis", "sqlalchemy"},
    "strategies": {"hypothesis"},
    "sqlalchemy": {"sqlalchemy"},
    "_asyncio": {"sqlalchemy"},
    "_connections": {"sqlalchemy"},
    "_finding": {"sqlalchemy"},
    "_sessions": {"sqlalchemy"},
    "_synchronous": {"sqlalchemy"},
    "_commands": {"typer"},
    "_completion": {"typer"},
    "_drawing": {"rich"},
    "_running": {"typer"},
    "outbox": {"sqlalchemy"},
}
LOADED_ANYWAY = {
    "asgi": {"asyncio"},
    "bridge": {"asyncio", "concurrent.futures"},
    "outbox": {"asyncio"},
}
"""What only some users need, by the module or the wing of ours whose users all need it."""
DEPENDENCIES = {"blinker", "pydantic", "pydantic_core", "typing_extensions"}

THE_DEPENDENCIES_ALONE = """
import blinker, pydantic, typing_extensions

class Context(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(defer_build=True)
    email: str
"""


def run_fresh(code: str) -> str:
    """Run code in an interpreter of its own, in which nothing measures coverage."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("COV")}
    finished = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return finished.stdout


def modules_after(code: str) -> set[str]:
    return set(
        json.loads(run_fresh(f"{code}\nimport json, sys\nprint(json.dumps([*sys.modules]))"))
    )


def imports_at_load(nodes: list[ast.stmt]) -> Iterator[str]:
    """Yield the modules that these statements import when they run; functions run later."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "the package imports itself by its full name"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from imports_at_load(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for field in ("body", "orelse", "handlers", "finalbody", "cases"):
                yield from imports_at_load(getattr(node, field, []))


def test_importing_the_package_registers_no_handler_and_starts_no_thread() -> None:
    state = run_fresh(
        "import threading, madcrow_events as events\n"
        "handlers = [s for name in events.madcrow_signals\n"
        "            for s in events.madcrow_signals[name].subscriptions]\n"
        "print(len(handlers), threading.active_count())"
    )

    assert state.split() == ["0", "1"]


def test_importing_the_package_loads_no_module_that_only_some_users_need() -> None:
    """What the dependencies load by themselves is not held against us.

    They load none of these today: pydantic imports `importlib.metadata` as it
    builds a model, which `defer_build` puts off.
    """
    by_themselves = modules_after(THE_DEPENDENCIES_ALONE)

    loaded = modules_after("import madcrow_events")

    assert loaded & (LOADED_WHEN_NEEDED | OURS_LOADED_WHEN_NEEDED) <= by_themselves


def test_the_plugins_are_imported_when_they_are_first_asked_for() -> None:
    """Few programs load plugins; the names are there for all."""
    shown = run_fresh(
        "import sys, threading, madcrow_events as events\n"
        "def loaded(): return any('madcrow_events.plugins' in name for name in sys.modules)\n"
        "before = loaded(), {'load_plugins', 'plugins', 'emit_event'} <= {*dir(events)}\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as threads:\n"
        "    found = {*threads.map(lambda _: events.load_plugins, range(8))}\n"
        "print(*before, loaded(), len(found))\n"
        "print(events.plugins.__name__, events.load_plugins is events.plugins.load_plugins)"
    )

    assert shown.splitlines() == [
        "False True True 1",
        "madcrow_events.plugins True",
    ]


def test_a_name_that_the_package_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'madcrow_events' has no attribute 'plugin'"):
        madcrow_events.plugin  # type: ignore[attr-defined]

    late = {name: getattr(madcrow_events, name) for name in madcrow_events._WITH_PLUGINS}
    assert all(madcrow_events.__getattr__(name) is it for name, it in late.items())  # type: ignore[attr-defined]
    assert late.keys() <= {*dir(madcrow_events)}


def test_importing_the_package_loads_nothing_but_the_standard_library_and_its_dependencies() -> (
    None
):
    added = modules_after("import madcrow_events") - modules_after(THE_DEPENDENCIES_ALONE)

    packages = {name.partition(".")[0] for name in added} - sys.stdlib_module_names

    assert packages - DEPENDENCIES == {"madcrow_events"}


@pytest.mark.once
def test_what_an_extra_brings_is_loaded_by_its_own_users_only() -> None:
    """The test kit and the command know the outbox, and only those who use it need SQLAlchemy."""
    packages = {"sqlalchemy", "alembic", "faststream", "rich", "typer"}

    for imports in ("madcrow_events", "madcrow_events.testing", "madcrow_events.cli"):
        assert modules_after(f"import {imports}") & packages == set()
    for imports in ("madcrow_events.outbox", "madcrow_events.bridge"):
        assert modules_after(f"import {imports}") & packages == {"sqlalchemy"}


def test_an_outbox_and_a_bridge_need_no_greenlet() -> None:
    """Which SQLAlchemy 2.1 leaves to those who install `sqlalchemy[asyncio]`."""
    pytest.importorskip("sqlalchemy")

    run_fresh(
        "import sys\n"
        "sys.modules['sqlalchemy.ext.asyncio'] = None\n"
        "import madcrow_events.bridge, madcrow_events.outbox"
    )


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    """Return what was read from each of our files."""
    paths = [*PACKAGE.rglob("*.py"), PACKAGE.parent / "pytest_madcrow_events.py"]
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def test_no_module_of_ours_imports_them_when_it_is_loaded(trees: dict[Path, ast.Module]) -> None:
    for path, tree in trees.items():
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        if module in OURS_LOADED_WHEN_NEEDED or path.parent == PACKAGE.parent:
            continue

        imported = set(imports_at_load(tree.body))
        parents = {name.rpartition(".")[0] for name in imported}
        packages = {name.partition(".")[0] for name in imported}

        needed = {*LOADED_WHEN_NEEDED}
        for name in (path.stem, path.parent.name):
            needed -= LOADED_ANYWAY.get(name, set())
            packages -= EXTRAS.get(name, set())
        assert not (imported | parents) & needed, module
        assert packages <= sys.stdlib_module_names | DEPENDENCIES | {"madcrow_events"}, module


def imports_when_called(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the modules and names that functions, and source text in strings, import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = node.body
        elif isinstance(node, ast.Constant) and "\nfrom madcrow_events" in str(node.value):
            inside = ast.parse(node.value).body
        else:
            continue
        for late in (found for statement in inside for found in ast.walk(statement)):
            if isinstance(late, ast.Import):
                yield from ((alias.name, "") for alias in late.names)
            elif isinstance(late, ast.ImportFrom):
                yield from ((late.module or "", alias.name) for alias in late.names)


def test_what_is_imported_late_is_there_by_its_name(trees: dict[Path, ast.Module]) -> None:
    """A mistake in one of these would only show when it is first needed, as a hanging worker."""
    late = {found for tree in trees.values() for found in imports_when_called(tree)}
    in_a_function = ("madcrow_events.emissions", "_async_loop")
    in_source_text = ("madcrow_events.plugins._checking", "check_here")

    assert {in_a_function, in_source_text} <= late
    for module, name in late:
        imported = importlib.import_module(module)

        assert not name or hasattr(imported, name) or importlib.import_module(f"{module}.{name}")


def test_a_name_that_somebody_has_replaced_or_removed_is_no_trouble() -> None:
    shown = run_fresh(
        "import madcrow_events as events\n"
        "from unittest import mock\n"
        "events.load_plugins = 'replaced'\n"
        "with mock.patch('madcrow_events.plugins'): pass\n"
        "print(events.check_plugins.__name__, events.load_plugins, events.plugins.__name__)"
    )
    assert shown == "check_plugins replaced madcrow_events.plugins\n"
