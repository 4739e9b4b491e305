"""The page of the log records has each record that the package writes, and no other.

The sources are read, not run, so that a line which no test reaches is found, too.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import logging
import pkgutil
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import madcrow_events
from madcrow_events import _logs, madcrow_signals
from madcrow_events.event_handlers import audit_group
from madcrow_events.event_handlers.security_handlers import handle_suspicious_activity_alert
from madcrow_events.event_handlers.system_handlers import handle_system_shutdown

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "logs.md").read_text(encoding="utf-8")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
METHODS = ("debug", "info", "warning", "error", "critical", "log")

MODULES = [
    importlib.import_module(info.name)
    for info in pkgutil.walk_packages(madcrow_events.__path__, "madcrow_events.")
]

_VALUE = re.compile(r"%[-+.\d]*[a-z]|<[^>]+>|\{[^}]*\}")


class Record(NamedTuple):
    """A record that may be written; in its message `*` stands for each value."""

    logger: str
    level: str
    message: str


def message_in(argument: ast.expr) -> str:
    """Return the message that an argument gives; one that is made elsewhere is a value."""
    if isinstance(argument, ast.JoinedStr):
        return _VALUE.sub("*", ast.unparse(argument)[2:-1])
    return _VALUE.sub("*", argument.value) if isinstance(argument, ast.Constant) else "*"


def levels_in(tree: ast.AST) -> set[str]:
    """Return the levels that a part of the source names, as in `logging.INFO`."""
    return {it.attr for it in ast.walk(tree) if isinstance(it, ast.Attribute)} & {*LEVELS}


def records_of(module: ModuleType, source: str) -> Iterator[Record]:
    """Yield what a module writes, by its loggers or by the functions of `_logs`."""
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for call in ast.walk(function):
                if isinstance(call, ast.Call):
                    yield from _records_of_call(module, function, call)


def _records_of_call(module: ModuleType, function: ast.AST, call: ast.Call) -> Iterator[Record]:
    name = call.func.value if isinstance(call.func, ast.Attribute) else call.func
    named: Any = getattr(module, name.id, None) if isinstance(name, ast.Name) else None
    if named is _logs._log_error:  # it writes "%s failed: %s"
        yield Record(_logs.LOGGER.name, "ERROR", f"{message_in(call.args[0])} failed: *")
        return
    logger, method = named, getattr(call.func, "attr", "")
    if named is _logs.log:
        logger, method = _logs.LOGGER, "log"
    if not isinstance(logger, logging.Logger) or method not in METHODS:
        return
    if method == "log":
        level, message, *_ = call.args
        # A level that is chosen before may be any of those that the function names.
        levels = levels_in(level) if isinstance(level, ast.Attribute) else levels_in(function)
    else:
        message, levels = call.args[0], {method.upper()}
    for level_name in levels:
        yield Record(logger.name, level_name, message_in(message))


def records_on(page: str) -> list[Record]:
    """Return the records in the tables of a page, each with the logger of its section."""
    row = re.compile(rf"^\| ({'|'.join(LEVELS)}) \| `([^`]+)` \| [^|]*\w[^|]* \|", re.MULTILINE)
    found = []
    for section in page.split("\n## ")[1:]:
        logger = re.search(r"^Logger: `([\w.]+)`$", section, re.MULTILINE)
        assert logger is not None
        found += [
            Record(logger[1], level, _VALUE.sub("*", text)) for level, text in row.findall(section)
        ]
    return found


def section(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def fields_of(record: logging.LogRecord) -> set[str]:
    """Return the names of what a record carries beside what every record has."""
    return vars(record).keys() - vars(logging.makeLogRecord({})).keys() - {"message", "asctime"}


def test_the_page_has_each_record_of_the_sources_and_no_other() -> None:
    """A user who searches a line finds it; a line that was removed is not searched for ever."""
    written = {it for module in MODULES for it in records_of(module, inspect.getsource(module))}
    listed = records_on(PAGE)
    assert written - {*listed} == set()
    assert {*listed} - written == set()
    assert len(listed) == len({*listed})
    overview = re.findall(r"^\| \[`([\w.]+)`\].* ([A-Z]+) \|$", PAGE, re.MULTILINE)
    assert overview == [
        (logger, min((it.level for it in group), key=LEVELS.index))
        for logger, group in groupby(listed, key=lambda it: it.logger)
    ]


def test_loggers_are_used_in_the_ways_that_the_test_above_knows() -> None:
    """No module writes with the root logger, a logger in a variable, or another method."""
    for module in MODULES:
        source = inspect.getsource(module)
        made = re.findall(r"^\w+(?:: [\w.]+)? = logging\.getLogger\(\"", source, re.MULTILINE)
        assert len(made) == source.count("getLogger("), module
        if module is _logs:
            assert re.findall(r'"[^"]*%s[^"]* failed[^"]*"', source) == ['"%s failed: %s"']
        else:
            methods = {*METHODS, "hasHandlers", "isEnabledFor"}
            assert {*re.findall(r"LOGGER\.(\w+)", source)} - methods == set(), module
        assert not re.search(r"\blogging\.[a-z]+\((?<!getLogger\()", source), module


def test_a_record_is_found_however_it_is_written() -> None:
    """By `log`, by a method with its level's name, or by a level that a function chooses."""
    module = ModuleType("module")
    vars(module).update(log=_logs.log, LOGGER=logging.getLogger("app"), _log_error=_logs._log_error)
    source = (
        "def one():\n    log(logging.INFO, '%s began', 1)\n"
        "async def two():\n    LOGGER.warning('it took %.1f s', 2.0)\n"
        "def three(bad):\n    level = logging.ERROR if bad else logging.DEBUG\n"
        "    LOGGER.log(level, text)\n"
        "def four(who):\n    _log_error(f'handler {who}', error)\n    print('%s', who)\n"
    )
    assert {*records_of(module, source)} == {
        Record("madcrow_events", "INFO", "* began"),
        Record("app", "WARNING", "it took * s"),
        Record("app", "ERROR", "*"),
        Record("app", "DEBUG", "*"),
        Record("madcrow_events", "ERROR", "handler * failed: *"),
    }


def test_a_row_without_its_reason_is_no_row() -> None:
    """The table says when a record is written."""
    page = "# Log\n\n## App\n\nLogger: `app`\n\n| INFO | `<event>` | {} | |\n"
    assert records_on(page.format("an event")) == [Record("app", "INFO", "*")]
    assert records_on(page.format("")) == []


def test_the_fields_of_the_audit_trail_are_those_of_the_page(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each handler of the group stands in the table, with each field that it writes."""
    text = section("The audit trail")
    listed = re.findall(
        r"`(\w+)`", text.partition("Each record has ")[2].partition(", and these")[0]
    )
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.*)\|$", text, re.MULTILINE)
    caplog.set_level(logging.INFO, logger="madcrow_events.audit")
    written = []
    for event, handler in audit_group.handlers:
        handler(None)
        written.append((event, handler.__name__, fields_of(caplog.records[-1]) - {*listed}))
    assert {*listed} <= fields_of(caplog.records[-1])
    assert written == [(event, name, {*re.findall(r"`(\w+)`", more)}) for event, name, more in rows]


@pytest.mark.parametrize("heading", ["Security", "The application"])
def test_the_fields_of_the_other_lines_are_those_of_the_page(
    heading: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An alert, and the end of the application, carry what their tables list."""
    caplog.set_level(logging.INFO, logger="madcrow_events.system")
    with madcrow_signals.isolated(empty=True):
        if heading == "Security":
            handle_suspicious_activity_alert(None, kind="brute_force", subject="a@b.c", count=5)
        else:
            handle_system_shutdown(None)
    listed = re.findall(r"^\| `(\w+)` \|", section(heading), re.MULTILINE)
    (record,) = caplog.records
    assert {*listed} == fields_of(record)
