"""Plugins: handler groups that other distributions offer through entry points.

A distribution offers a `HandlerGroup` under the entry-point group
`madcrow_events.handlers`. What its metadata and its source tell is checked
before it is imported; what it raises while it is loaded is its own failure.
All of this limits accidents, not malice: a plugin is code that runs with all
the rights of the application.

It is longer than other files because loading, checking and unloading share
what a registry holds of a plugin.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, cast

from madcrow_events._logs import printable, type_name
from madcrow_events._waiting import check_seconds
from madcrow_events.exceptions import (
    InvalidOptionError,
    MadcrowEventsError,
    PluginError,
    UnknownEventError,
)
from madcrow_events.handlers import HandlerGroup
from madcrow_events.plugins._discovery import (
    ENTRY_POINT_GROUP,
    LOGGER,
    Plugin,
    discover_plugins,
    is_called,
    why_unfit,
    why_unwanted,
)
from madcrow_events.plugins._footprint import Footprint
from madcrow_events.plugins._gate import Gate
from madcrow_events.signals import madcrow_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from madcrow_events.signals import SignalRegistry


__all__ = [
    "ENTRY_POINT_GROUP",
    "Plugin",
    "PluginReport",
    "PluginStatus",
    "check_plugins",
    "discover_plugins",
    "load_plugins",
    "unload_plugin",
]

PluginStatus: TypeAlias = Literal["loaded", "refused", "failed"]

_SLOW = 0.5  # seconds


class PluginReport(NamedTuple):
    """What came of one plugin (P1).

    Attributes:
        plugin: what its metadata says.
        status: `loaded`; `refused`, without an import; or `failed`, while it was loaded.
        reason: why it was not loaded, and what would help; empty if it was. May quote what the
            plugin raised.
        milliseconds: how long it took to import and register it.
        signals: the events that it brought.
        handlers: the events or patterns that its handlers are subscribed to, in order.
        exception: what it raised, or None.
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
        """Whether it is loaded."""
        return self.status == "loaded"

    @property
    def name(self) -> str:
        """The plugin's name, such as `acme-alerts:alerts`."""
        return self.plugin.name

    @property
    def distribution(self) -> str:
        """The name of the distribution that offers it."""
        return self.plugin.distribution

    @property
    def version(self) -> str:
        """The version of that distribution."""
        return self.plugin.version

    def __str__(self) -> str:
        """Tell it in one line."""
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


class _Held:
    """What a registry holds of a plugin.

    Attributes:
        ticket: empty while it is being loaded or unloaded; who unloads it pops what is in it.
    """

    def __init__(self) -> None:
        self.gate = Gate()
        self.ticket: list[bool] = []
        self.group: HandlerGroup | None = None
        self.report: PluginReport | None = None

    def reinstate(self) -> None:
        """Let it be loaded, as it was before an `isolated` block."""
        if self.report is not None:
            self.gate.open()
            self.ticket = [True]


# Loading


def load_plugins(
    *,
    allow: Iterable[str] | None = None,
    deny: Iterable[str] | None = None,
    signals: SignalRegistry = madcrow_signals,
) -> list[PluginReport]:
    """Import every plugin that is wanted, and register its group: all of it, or nothing (P1-P3).

    The environment has its say, too: `MADCROW_EVENTS_DISABLE_PLUGINS=1` refuses them all,
    `MADCROW_EVENTS_PLUGINS_DENY` and `MADCROW_EVENTS_PLUGINS_ALLOW` are lists like the
    arguments, with commas between the names. What either deny list names is refused, and
    so is what an allow list, where there is one, does not name.

    Before each import the audit event `madcrow_events.load_plugin` is raised with the plugin's
    name and target. What is loaded already is left as it is, and reported as loaded. One that
    needs an event that another one declares is loaded after it.

    Args:
        allow: names of plugins, such as `acme-alerts:alerts`, of entry points (`alerts`) or of
            distributions (`acme-alerts`): only these are loaded.
        deny: likewise: these are not.
        signals: the registry in which they are registered.

    Returns:
        A report for each plugin that is installed, by name.

    Raises:
        InvalidOptionError: a list is no list of names.
    """
    plugins = discover_plugins()
    unwanted = why_unwanted(plugins, allow, deny)
    before = [held.report for held in signals._plugins.values()]
    reports = {
        plugin.name: _refused(plugin, plugins, unwanted) or _load(plugin, signals)
        for plugin in plugins
    }
    while waiting := [it for it in reports.values() if isinstance(it.exception, UnknownEventError)]:
        again = {it.plugin.name: _load(it.plugin, signals) for it in waiting}
        reports |= again
        if not any(report.ok for report in again.values()):
            break
    for report in reports.values():
        if not any(report is earlier for earlier in before):
            _log(report, is_wanted=report.plugin not in unwanted)
    return list(reports.values())


def _refused(
    plugin: Plugin, plugins: list[Plugin], unwanted: dict[Plugin, str]
) -> PluginReport | None:
    reason = unwanted.get(plugin) or why_unfit(plugin, plugins)
    return PluginReport(plugin, "refused", reason) if reason else None


def _load(
    plugin: Plugin,
    signals: SignalRegistry,
    import_group: Callable[[Plugin], HandlerGroup] | None = None,
) -> PluginReport:
    plugins, held = signals._plugins, _Held()
    present = plugins.setdefault(plugin.entry_point, held)
    if present is not held:
        if present.ticket:
            return cast("PluginReport", present.report)
        reason = "it is being loaded or unloaded already, by another thread or by itself"
        return PluginReport(plugin, "refused", reason)
    footprint, began = Footprint(plugin, signals), time.perf_counter()
    try:
        group = (import_group or _imported)(plugin)
        _refuse_twice(group, plugins)
        footprint.declare_again()
        group.unregister(signals)  # what it registered itself would not pass the gate
        footprint.refuse_others()
        group._register(signals, held.gate)
        held.report = report = PluginReport(
            plugin,
            "loaded",
            milliseconds=(time.perf_counter() - began) * 1000,
            signals=tuple(signal.name for signal in footprint.events(group)),
            handlers=tuple(event for event, _ in group.handlers),
        )
        held.group = group
        held.ticket = [True]
    except (Exception, SystemExit) as error:  # noqa: BLE001  # it is the plugin's failure (P3)
        took = (time.perf_counter() - began) * 1000
        return PluginReport(plugin, "failed", _reason(error), took, exception=error)
    finally:
        if held.report is None:
            footprint.erase()
            del plugins[plugin.entry_point]
    return report


def _imported(plugin: Plugin) -> HandlerGroup:
    from importlib import import_module  # noqa: PLC0415  # loaded when first needed

    sys.audit("madcrow_events.load_plugin", plugin.name, plugin.target)
    where = f"its entry point {printable(plugin.entry_point)} = {printable(plugin.target)}"
    fix = "correct it in its pyproject.toml, and install it again"
    if not plugin._module or not plugin._attribute:
        raise PluginError(f"{where} is not of the form module:object: {fix}", plugin=plugin.name)
    try:
        thing: Any = import_module(plugin._module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{plugin._module}.".startswith(f"{error.name}."):
            raise
        message = f"{where} names a module that there is not: {fix}"
        raise PluginError(message, plugin=plugin.name) from error
    for name in plugin._attribute.split("."):
        try:
            thing = getattr(thing, name)
        except AttributeError as error:
            message = f"{where} names an object that the module has not: {fix}"
            raise PluginError(message, plugin=plugin.name) from error
    if not isinstance(thing, HandlerGroup):
        raise PluginError(
            f"{where} names {type_name(type(thing))}, not a HandlerGroup: export one object, such "
            "as group = HandlerGroup('alerts')",
            plugin=plugin.name,
        )
    return thing


def _refuse_twice(group: HandlerGroup, plugins: dict[str, Any]) -> None:
    for held in plugins.values():
        if held.group is group and held.ticket:
            raise PluginError(
                f"its group is loaded already, as {printable(held.report.plugin.name)}: offer it "
                "under one entry point"
            )


def _reason(error: BaseException) -> str:
    kind = type_name(type(error))
    try:
        text = printable(error)
    except Exception:  # noqa: BLE001  # an exception can be made so that it cannot be shown
        text = ""
    return f"{f'{kind}: {text}' if text else kind}{_place(error)}"


def _places(error: BaseException) -> list[tuple[str, int]]:
    """Return the files and lines of an error's traceback, the innermost last."""
    found, traceback = [], error.__traceback__
    while traceback is not None:
        found.append((traceback.tb_frame.f_code.co_filename, traceback.tb_lineno))
        traceback = traceback.tb_next
    return found


_HERE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")  # noqa: PTH118, PTH120  # pathlib would be imported for it


def _place(error: BaseException) -> str:
    """Tell where an error was raised or, if this package raised it, what led there."""
    places = [it for it in _places(error) if not it[0].startswith(("<frozen", _HERE))]
    return f" ({printable(places[-1][0])}, line {places[-1][1]})" if places else ""


def _is_ours(error: BaseException) -> bool:
    """Tell whether this package raised an error, whose text then quotes nothing."""
    places = _places(error)
    return isinstance(error, MadcrowEventsError) and places[-1][0].startswith(_HERE)


def _log(report: PluginReport, *, is_wanted: bool) -> None:
    level = {"loaded": logging.INFO, "refused": logging.WARNING, "failed": logging.ERROR}
    reason, error = report.reason, report.exception
    if error is not None and not _is_ours(error):
        # Its text is the plugin's, and may quote anything (G1).
        reason = f"{type_name(type(error))}{_place(error)}; the report has its text"
    LOGGER.log(
        level[report.status] if is_wanted else logging.INFO, "plugin %s", report._told(reason)
    )
    if report.milliseconds > _SLOW * 1000:
        LOGGER.warning(
            "plugin %s took %.1f s to load: what it prepares at import could wait until it "
            "handles its first event",
            printable(report.plugin.name),
            report.milliseconds / 1000,
        )


# Checking

_CHECK: Final = """\
import json, os, sys
sys.path[:] = json.loads(sys.argv[1])
from madcrow_events import madcrow_signals
from madcrow_events.plugins import _plugins as plugins
madcrow_signals.strict = False
plugins._check_here(*sys.argv[2:])
os._exit(0)  # without waiting for a thread that the plugin began
"""


def check_plugins(
    *,
    allow: Iterable[str] | None = None,
    deny: Iterable[str] | None = None,
    timeout: float = 10.0,
) -> list[PluginReport]:
    """Load every plugin that is wanted in a process of its own, one after the other.

    Nothing is loaded into this process; so one that hangs, or ends its process, is named, too.
    That process knows no event of the application: each name that a plugin listens to counts as
    declared there, without a model.

    Args:
        allow: see `load_plugins`.
        deny: likewise.
        timeout: how long a plugin may take, in seconds.

    Returns:
        A report for each plugin that is installed, by name. `milliseconds` are those of the
        load, without the start of the process; reports have no `exception`.

    Raises:
        InvalidOptionError: a list is no list of names, or the timeout no positive number.
    """
    check_seconds("timeout", timeout)
    plugins = discover_plugins()
    unwanted = why_unwanted(plugins, allow, deny)
    return [_refused(plugin, plugins, unwanted) or _check(plugin, timeout) for plugin in plugins]


def _check(plugin: Plugin, timeout: float) -> PluginReport:
    import json  # noqa: PLC0415  # only checks need it
    import subprocess  # noqa: PLC0415  # likewise
    import tempfile  # noqa: PLC0415  # likewise

    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
        # Not its output, to which the plugin may print.
        answer = os.path.join(folder, "report.json")  # noqa: PTH118  # pathlib would be imported for it
        command = [sys.executable, "-c", _CHECK, json.dumps(sys.path), plugin.name, answer]
        try:
            done = subprocess.run(  # noqa: S603  # this very Python
                command,
                check=False,
                timeout=timeout,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        except subprocess.TimeoutExpired:
            return PluginReport(
                plugin,
                "failed",
                f"it was not loaded within {timeout} s: it may hang; see what it does at import",
                timeout * 1000,
            )
        try:
            with open(answer, encoding="utf-8") as file:  # noqa: PTH123  # as above
                told = json.load(file)
        except (OSError, ValueError):
            errors.seek(0)
            *_, last = errors.read().decode(errors="replace").strip().splitlines() or [""]
            reason = f"its process ended with status {done.returncode} before it was loaded"
            reason += f": {printable(last)}" if last else ""
            return PluginReport(plugin, "failed", reason)
    status, reason, took, signals, handlers = told
    return PluginReport(plugin, status, reason, took, tuple(signals), tuple(handlers))


def _check_here(name: str, answer: str) -> None:
    """Load one plugin, and write what came of it to a file; run by `_check`."""
    import json  # noqa: PLC0415  # as in `_check`

    (plugin,) = (it for it in discover_plugins() if it.name == name)
    report = _load(plugin, madcrow_signals)
    told = (report.status, report.reason, report.milliseconds, report.signals, report.handlers)
    with open(answer, "w", encoding="utf-8") as file:  # noqa: PTH123  # as above
        json.dump(told, file)


# Unloading


def unload_plugin(
    name: str, *, timeout: float | None = 5.0, signals: SignalRegistry = madcrow_signals
) -> bool:
    """Cancel every subscription of a plugin, and forget the events that it alone knows.

    When it has returned, none of the plugin's handlers starts any more (F4); those that
    other threads are in are waited for. What waits for its handlers in the background is
    dropped, and a warning tells so: drain the dispatcher first.

    An event that it declared stays while somebody else's handler is subscribed to it, by
    its name. Its modules stay imported, as Python has it; it can be loaded again.

    Args:
        name: the plugin's name, such as `acme-alerts:alerts`, its entry point's, or its
            distribution's.
        timeout: how long to wait for calls in other threads, in seconds; None for as long as
            they take.
        signals: the registry in which it was loaded.

    Returns:
        Whether it was loaded.

    Raises:
        InvalidOptionError: the name is no string, or the timeout no number of seconds.
    """
    check_seconds("timeout", timeout, allow_zero=True)
    if not isinstance(name, str):
        raise InvalidOptionError(
            f"name is that of a plugin, such as 'acme-alerts:alerts', not {type_name(type(name))}",
            option="name",
        )
    plugins: dict[str, Any] = signals._plugins
    found = [
        held
        for held in list(plugins.values())
        if held.ticket and is_called(held.report.plugin, name.strip())
    ]
    outcomes = [_unload(held, plugins, timeout, signals) for held in found]
    return any(outcomes)


def _unload(
    held: Any, plugins: dict[str, Any], timeout: float | None, signals: SignalRegistry
) -> bool:
    try:
        held.ticket.pop()
    except IndexError:  # pragma: no cover  # another thread was faster, at this very moment
        return False
    report: PluginReport = held.report
    name = printable(report.plugin.name)
    try:
        held.gate.close()
        held.group.unregister(signals)
        unfinished = held.gate.wait(timeout)
        others = {
            entry.name
            for other in plugins.values()
            if other.ticket
            for entry in other.group._signals
        }
        for event in report.signals:
            signal = signals.get(event)
            # A part of somebody's pattern comes back with the signal.
            if signal is None or any(it._owner is None for it in signal.subscriptions):
                continue
            if event not in others:
                signals._forget(signal)
    finally:
        del plugins[report.plugin.entry_point]
    if unfinished:
        LOGGER.warning(
            "plugin %s: %d calls of its handlers did not end within %s s, and still run",
            name,
            unfinished,
            timeout,
        )
    LOGGER.info("plugin %s: unloaded", name)
    return True
