"""The pages for contributors name what there is."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from contextvars import ContextVar
from itertools import count
from pathlib import Path
from types import GenericAlias, ModuleType
from typing import Any

import pytest

import madcrow_events
from madcrow_events import HandlerGroup
from madcrow_events._locks import Lock

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "contributing"
ARCHITECTURE = (PAGES / "architecture.md").read_text(encoding="utf-8")

MODULES = {
    info.name.removeprefix("madcrow_events."): importlib.import_module(info.name)
    for info in pkgutil.walk_packages(madcrow_events.__path__, "madcrow_events.")
}


@pytest.mark.skipif(not (ROOT / ".ci").exists(), reason="the wheel is tested, away from the clone")
def test_the_commands_of_the_readme_are_those_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## From a clone\n")[2]
    commands = re.findall(r"^\$ (.+)$", readme, re.MULTILINE)
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert commands == re.findall(r'bash -c "(.+)"$', script, re.MULTILINE)
    assert len(commands) == 2


def section(heading: str) -> str:
    return ARCHITECTURE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def is_state(name: str, value: Any) -> bool:
    """Whether a value of a module can change; a collection in capitals is a constant."""
    if isinstance(value, ContextVar | count | HandlerGroup | Lock):
        return True
    if hasattr(value, "_renew_after_fork") or hasattr(value, "cache_clear"):
        return True
    if isinstance(value, GenericAlias):  # a type, which has the attributes of its origin
        return False
    is_collection = getattr(value, "__hash__", None) is None
    return is_collection and not name.isupper() and not name.startswith("__")


def state_of(module: ModuleType, source: str) -> Iterator[str]:
    """Yield the names that a module rebinds, or whose values can change."""
    yield from re.findall(r"^ +global (\w+)", source, re.MULTILINE)
    # A bare name on the right is something that another module holds.
    made = r"^(\w+)(?:: [^=\n]+)? = (?![\w.]+$)|^def (\w+)"
    for assigned, defined in re.findall(made, source, re.MULTILINE):
        name = assigned or defined
        if hasattr(module, name) and is_state(name, getattr(module, name)):
            yield name


def test_the_table_of_the_state_names_what_modules_keep() -> None:
    listed = re.findall(r"^\| (`.*?`) \|", section("The state of the process"), re.MULTILINE)
    named = [name for cell in listed for name in re.findall(r"`([^`]+)`", cell)]
    present = {
        f"{room}.{name}"
        for room, module in MODULES.items()
        for name in state_of(module, inspect.getsource(module))
    }
    assert present - {*named} == set()
    assert {*named} - present == set()
    assert len(named) == len({*named})


def test_state_is_what_can_change() -> None:
    module = ModuleType("module")
    source = (
        "import contextvars, functools, sys\n"
        "_cache = {}\n_kept: list[str] = []\nTABLE = {1: 2}\n_modules = sys.modules\n_name = ''\n"
        "Scope = dict[str, int]\n"
        "current = contextvars.ContextVar('current')\n_function = None\n__all__ = ['x']\n\n\n"
        "@functools.cache\ndef _cached(): ...\n\n\n"
        "def load():\n    global _function\n    _local = []\n"
    )
    exec(source, vars(module))  # noqa: S102  # a module without a file
    assert {*state_of(module, source)} == {"_cache", "_kept", "current", "_function", "_cached"}


@pytest.mark.parametrize("page", ["index", "architecture"])
def test_the_rooms_that_a_page_names_are_there(page: str) -> None:
    wings = "|".join(name for name, module in MODULES.items() if hasattr(module, "__path__"))
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    text = text.replace(section("The state of the process"), "")
    named = set(re.findall(rf"`((?:{wings})\.[\w.]+)`", text))
    assert named
    assert named - MODULES.keys() == set()
