"""The page of the settings has each setting, with its default, and no other."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import madcrow_events
import pytest_madcrow_events
from madcrow_events import Batch, EventDispatcher, SignalRegistry
from madcrow_events._background.exit import EXIT_SECONDS
from madcrow_events._logs import _TRACEBACK_LENGTH
from madcrow_events._names import _MAX_LENGTH
from madcrow_events.bridge import Bridge
from madcrow_events.contrib.asgi import _SECONDS_AFTER, EventsMiddleware
from madcrow_events.emissions._chains import MAX_DEPTH
from madcrow_events.emissions._scopes import LONGEST_USER_AGENT
from madcrow_events.event_handlers import (
    auth_group,
    register_all_handlers,
    security_group,
    system_group,
)
from madcrow_events.event_handlers._bounded import MAX_KEY_LENGTH, MAX_SUBJECTS
from madcrow_events.event_handlers._stores import MAX_EVENTS_OF_A_USER
from madcrow_events.event_handlers._windows import MAX_TIMES
from madcrow_events.event_handlers.security_handlers import SecurityLimits
from madcrow_events.outbox import Outbox, Retry, Worker
from madcrow_events.plugins import ENTRY_POINT_GROUP
from madcrow_events.plugins._reports import _SLOW

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
SOURCES = [
    *Path(madcrow_events.__file__).parent.rglob("*.py"),
    Path(pytest_madcrow_events.__file__),
]


def rows(head: str, section: str = "") -> list[list[str]]:
    """Return the cells of the first table with this head, in a section of the page."""
    text = PAGE.read_text("utf-8").partition(f"\n## {section}")[2]
    lines = text.partition(f"\n| {head} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names(head: str) -> list[str]:
    return [name.strip("`") for name, *_ in rows(head)]


def value_of(cell: str) -> Any:
    """Return a default that a cell shows as it is written in code."""
    code = cell.strip("`")
    if code.startswith("timedelta("):
        return eval(code, {"timedelta": timedelta})  # noqa: S307  # it stands on our own page
    return getattr(madcrow_events, code, None) or ast.literal_eval(code)


def test_the_page_has_each_environment_variable_that_the_sources_name() -> None:
    """In a module that reads the environment, every name in capitals counts as a variable.

    The `environ` of WSGI describes a request.
    """
    named = set()
    for path in SOURCES:
        source = path.read_text("utf-8")
        named |= {*re.findall(r"\bMADCROW_EVENTS_[A-Z_]*[A-Z]\b", source)}
        if re.search(r"\bos\.environ\b|\bgetenv\b|\bimport environ\b", source):
            named |= {*re.findall(r"[\"']([A-Z]+(?:_[A-Z]+)+)[\"']", source)}
    assert sorted(names("variable")) == sorted(named)


def test_the_page_has_each_ini_option_and_each_fixture_of_the_pytest_plugin() -> None:
    """The options are those that the plugin gives to pytest's parser, with their defaults."""
    parser = Mock(spec=["addini"])  # a command-line option would be an error here
    pytest_madcrow_events.pytest_addoption(parser)
    options = {it.args[0]: it.kwargs["default"] for it in parser.addini.mock_calls}
    listed = {row[0].strip("`"): value_of(row[1]) for row in rows("ini option")}
    assert listed == options
    source = inspect.getsource(pytest_madcrow_events)
    fixtures = re.findall(r"^@pytest\.fixture.*\ndef (\w+)", source, re.MULTILINE)
    assert names("fixture") == fixtures


@pytest.mark.parametrize(
    ("section", "function"),
    [
        ("EventDispatcher", EventDispatcher.__init__),
        ("SignalRegistry", SignalRegistry.__init__),
        ("Batch", Batch),
        ("Outbox", Outbox),
        ("Worker", Worker),
        ("Retry", Retry),
        ("Bridge", Bridge),
        ("EventsMiddleware", EventsMiddleware.__init__),
        ("SecurityLimits", SecurityLimits),
        ("Ready-made handlers", register_all_handlers),
    ],
)
def test_the_page_has_each_argument_with_its_default(
    section: str, function: Callable[..., Any]
) -> None:
    """An argument that the page lacks or invents is an error, and so is another default."""
    parameters = inspect.signature(function).parameters.values()
    taken = {it.name: it.default for it in parameters if it.default is not it.empty}
    listed = {row[0].strip("`"): value_of(row[1]) for row in rows("argument", section)}
    assert listed == taken


def test_the_page_has_each_ready_made_handler_with_its_events() -> None:
    """Those of the audit trail stand on the page of the log records, whose test looks at them."""
    listed = [
        (f"{group.name}_group", handler.__name__, event)
        for group in (auth_group, security_group, system_group)
        for event, handler in group.handlers
    ]
    shown = [
        (group.strip("`"), handler.strip("`"), event.strip("`"))
        for group, handler, events, _ in rows("group")
        for event in events.split(", ")
    ]
    assert sorted(shown) == sorted(listed)


def test_the_page_has_the_entry_point_group() -> None:
    """A plugin under another name would never be found."""
    assert names("entry-point group") == [ENTRY_POINT_GROUP]


def test_the_limits_are_those_of_the_sources() -> None:
    """Each number of the table, in its order."""
    limits = [float(value.replace(",", "")) for _, value, _ in rows("limit")]
    assert limits == [
        *(MAX_SUBJECTS, MAX_TIMES, MAX_EVENTS_OF_A_USER, MAX_KEY_LENGTH, MAX_DEPTH, _MAX_LENGTH),
        *(LONGEST_USER_AGENT, EXIT_SECONDS, _SECONDS_AFTER, _SLOW, _TRACEBACK_LENGTH),
    ]
