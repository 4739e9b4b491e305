"""The report on each plugin, and its line in the log."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeAlias

from madcrow_events._interrupts import is_interrupt
from madcrow_events._text import printable, type_name
from madcrow_events.exceptions import MadcrowEventsError, UnknownEventError
from madcrow_events.plugins._discovery import LOGGER, Plugin

__all__ = ["PluginReport", "PluginReports", "PluginStatus", "log_report", "reason_of"]


PluginStatus: TypeAlias = Literal["loaded", "refused", "failed"]
"""What became of a plugin.

- `"loaded"`: the plugin was imported, and its group is registered.
- `"refused"`: the plugin was not imported.
- `"failed"`: loading the plugin raised an exception.
"""


_SLOW = 0.5  # seconds


class PluginReport(NamedTuple):
    """What came of loading or checking one plugin. `str(report)` is one line.

    Attributes:
        plugin: the plugin, as its metadata describes it.
        status: `"loaded"`, `"refused"` (it was not imported), or `"failed"` (loading it raised an
            exception).
        reason: why the plugin was not loaded, and what helps; empty if it was loaded. The text may
            quote the plugin's exception.
        milliseconds: how long it took to import and register the plugin, in milliseconds.
        signals: the names of the events that the plugin declared.
        handlers: the events and patterns to which its handlers are subscribed, in order, also those
            that optional handlers wait for.
        exception: the exception that loading it raised, or None.
    """

    plugin: Plugin
    status: PluginStatus
    reason: str = ""
    milliseconds: float = 0.0
    signals: tuple[str, ...] = ()
    handlers: tuple[str, ...] = ()
    exception: BaseException | None = None

    @property
    def ok(self) -> bool:
        """Whether the plugin is loaded."""
        return self.status == "loaded"

    @property
    def name(self) -> str:
        """The plugin's name, such as `acme-alerts:alerts`."""
        return self.plugin.name

    @property
    def distribution(self) -> str:
        """The name of the plugin's distribution."""
        return self.plugin.distribution

    @property
    def version(self) -> str:
        """The version of the plugin's distribution."""
        return self.plugin.version

    def __str__(self) -> str:
        """Return the report in one line."""
        return self._told(self.reason)

    def _told(self, reason: str) -> str:
        plugin = self.plugin
        head = f"{printable(plugin.name)} {printable(plugin.version)}: {self.status}"
        if reason:
            return f"{head}: {reason}"
        return (
            f"{head} in {self.milliseconds:.1f} ms, "
            f"signals: {len(self.signals)}, handlers: {len(self.handlers)}"
        )


class PluginReports(list[PluginReport]):
    """A list with the report of each installed plugin, sorted by name.

    Args:
        reports: the reports.
        warnings: see the attribute.

    Attributes:
        warnings: a message for each entry of an allow or deny list that means no installed plugin.
    """

    def __init__(self, reports: Iterable[PluginReport] = (), warnings: Iterable[str] = ()) -> None:
        super().__init__(reports)
        self.warnings: tuple[str, ...] = tuple(warnings)


def reason_of(error: BaseException) -> str:
    kind = type_name(type(error))
    try:
        text = printable(str(error))
        # A plugin does not declare the events of the application.
        if isinstance(error, UnknownEventError) and error.event and not error.suggestions:
            text = f"no event is called '{error.event}': import the application first"
    except Exception as raised:  # its `__str__` may raise anything
        if is_interrupt(raised):
            raise
        text = ""
    return f"{f'{kind}: {text}' if text else kind}{_place(error)}"


def _places(error: BaseException) -> list[tuple[str, int]]:
    """Return the files and lines of an error's traceback, the innermost last."""
    found, traceback = [], error.__traceback__
    while traceback is not None:
        found.append((traceback.tb_frame.f_code.co_filename, traceback.tb_lineno))
        traceback = traceback.tb_next
    return found


_HERE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")  # noqa: PTH118, PTH120  # pathlib would be imported


def _place(error: BaseException) -> str:
    """Return the place where an error was raised, or the caller's if this package raised it."""
    places = [it for it in _places(error) if not it[0].startswith(("<frozen", _HERE))]
    return f" ({printable(places[-1][0])}, line {places[-1][1]})" if places else ""


def _is_ours(error: BaseException) -> bool:
    """Whether this package raised an error; the text of such an error quotes no values."""
    places = _places(error)
    return isinstance(error, MadcrowEventsError) and places[-1][0].startswith(_HERE)


def log_report(report: PluginReport, *, is_wanted: bool) -> None:
    level = {"loaded": logging.INFO, "refused": logging.WARNING, "failed": logging.ERROR}
    reason, error = report.reason, report.exception
    if error is not None and not _is_ours(error):
        # The text is the plugin's: it may quote values, which are never logged.
        reason = f"{type_name(type(error))}{_place(error)}; the report has its text"
    LOGGER.log(
        level[report.status] if is_wanted else logging.INFO, "plugin %s", report._told(reason)
    )
    if report.milliseconds > _SLOW * 1000:
        LOGGER.warning(
            "plugin %s took %.1f s to load: its author could move slow work from the import to the "
            "first event that it handles",
            printable(report.plugin.name),
            report.milliseconds / 1000,
        )
