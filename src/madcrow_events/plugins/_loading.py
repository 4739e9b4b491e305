"""Loading plugins into a registry, and taking them out again.

What a plugin raises while it is loaded is its own failure. All of this limits accidents, not
malice: a plugin is code that runs with all the rights of the application.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NoReturn

from madcrow_events._text import printable, type_name
from madcrow_events._waiters import check_seconds
from madcrow_events.exceptions import InvalidOptionError, PluginError, UnknownEventError
from madcrow_events.handlers import HandlerGroup
from madcrow_events.handlers._declaring import events_of, has_lasting_handlers, register_wrapped
from madcrow_events.plugins._discovery import LOGGER, Plugin, discover_plugins, is_called
from madcrow_events.plugins._fitness import why_unfit
from madcrow_events.plugins._footprint import Footprint
from madcrow_events.plugins._loaded import Held, loaded_in
from madcrow_events.plugins._policy import why_unwanted
from madcrow_events.plugins._reports import PluginReport, PluginReports, log_report, reason_of
from madcrow_events.signals import SignalRegistry, madcrow_signals
from madcrow_events.signals._registry import CLEARING, forget
from madcrow_events.subscriptions._subscription import is_part

__all__ = ["load", "load_plugins", "refused", "unload_plugin"]


def load_plugins(
    *,
    allow: Iterable[str] | None = None,
    deny: Iterable[str] | None = None,
    signals: SignalRegistry = madcrow_signals,
) -> PluginReports:
    """Import every plugin that is wanted, and register its group: all of it, or nothing (P1-P3).

    The environment has its say, too: `MADCROW_EVENTS_DISABLE_PLUGINS=1` refuses them all,
    `MADCROW_EVENTS_PLUGINS_DENY` and `MADCROW_EVENTS_PLUGINS_ALLOW` are lists like the
    arguments, with commas between the names. What either deny list names is refused, and
    so is what an allow list, where there is one, does not name.

    Before each import the audit event `madcrow_events.load_plugin` is raised with the plugin's
    name and target. What is loaded already is left as it is, and reported as loaded; where all
    of its handlers were removed since, as by `clear_all_handlers`, they are subscribed again. One
    that needs an event that another one declares is loaded after it.

    Lists keep out what is not meant to be loaded. They are no authentication: a distribution is
    called what whoever built it has called it.

    Args:
        allow: names of distributions, such as `acme-alerts`, or of plugins, such as
            `acme-alerts:alerts`: only these are loaded.
        deny: names of distributions, plugins, or entry points such as `alerts`: these are not.
        signals: the registry in which they are registered.

    Returns:
        A report for each plugin that is installed, by name; its `warnings` tell of names on the
        lists that mean none.

    Raises:
        InvalidOptionError: a list is no list of names, or `signals` is no registry.
    """
    _check_registry(signals)
    plugins = discover_plugins()
    unwanted, warnings = why_unwanted(plugins, allow, deny)
    wanted = [plugin for plugin in plugins if plugin not in unwanted]
    before = [held.report for held in list(loaded_in(signals).by_key.values())]
    reports = {
        plugin.name: refused(plugin, wanted, unwanted) or load(plugin, signals)
        for plugin in plugins
    }
    while waiting := [it for it in reports.values() if isinstance(it.exception, UnknownEventError)]:
        again = {it.plugin.name: load(it.plugin, signals) for it in waiting}
        reports |= again
        if not any(report.ok for report in again.values()):
            break
    for report in reports.values():
        if not any(report is earlier for earlier in before):
            log_report(report, is_wanted=report.plugin not in unwanted)
    return PluginReports(reports.values(), warnings)


def _check_registry(signals: object) -> None:
    if not isinstance(signals, SignalRegistry):
        raise InvalidOptionError("signals must be a SignalRegistry", option="signals")


def refused(
    plugin: Plugin, wanted: list[Plugin], unwanted: dict[Plugin, str]
) -> PluginReport | None:
    reason = unwanted.get(plugin) or why_unfit(plugin, wanted)
    return PluginReport(plugin, "refused", reason) if reason else None


def load(
    plugin: Plugin,
    signals: SignalRegistry,
    import_group: Callable[[Plugin], HandlerGroup] | None = None,
) -> PluginReport:
    plugins, held = loaded_in(signals).by_key, Held()
    present = plugins.setdefault(plugin._key, held)
    if present is not held:
        return _load_again(plugin, present, signals)
    footprint, began = Footprint(plugin, signals), time.perf_counter()
    group = None
    try:
        group = (import_group or _imported)(plugin)
        _refuse_twice(group, plugins)
        footprint.declare_again()
        group.unregister(signals)  # what it registered itself would not pass the gate
        footprint.refuse_others()
        register_wrapped(group, signals, held.gate.around)
        held.report = report = PluginReport(
            plugin,
            "loaded",
            milliseconds=(time.perf_counter() - began) * 1000,
            signals=tuple(signal.name for signal in footprint.events(group)),
            handlers=tuple(event for event, _ in group.handlers),
        )
        held.group = group
        held.ticket = [True]
    except (Exception, SystemExit) as error:  # it is the plugin's failure (P3)
        took = (time.perf_counter() - began) * 1000
        return PluginReport(plugin, "failed", reason_of(error), took, exception=error)
    finally:
        if held.report is None:
            footprint.erase()
            if group is None:
                footprint.forget_modules()
            del plugins[plugin._key]
    return report


def _load_again(plugin: Plugin, held: Any, signals: SignalRegistry) -> PluginReport:
    """Leave a plugin that is loaded as it is, unless all of its handlers were removed."""
    report: PluginReport = held.report
    reason = "it is being loaded or unloaded already, by another thread or by itself"
    if not held.ticket:
        return PluginReport(plugin, "refused", reason)
    name = printable(report.plugin.name)
    if report.plugin.name != plugin.name:
        other = f"{name} offers the same name, and is loaded: unload_plugin('{name}') first"
        return PluginReport(plugin, "refused", other)
    # A `once` may have ended by itself.
    lasts = has_lasting_handlers(held.group)
    if not lasts or any(it.origin is held.group for it in signals.subscriptions):
        return report
    try:
        held.ticket.pop()
    except IndexError:  # pragma: no cover  # another thread was faster, at this very moment
        return PluginReport(plugin, "refused", reason)
    try:
        Footprint(plugin, signals).declare_again()
        register_wrapped(held.group, signals, held.gate.around)
    except (Exception, SystemExit) as error:  # it is the plugin's failure (P3)
        return PluginReport(plugin, "failed", reason_of(error), exception=error)
    finally:
        held.ticket.append(True)
    LOGGER.info("plugin %s: its handlers had been removed, and are subscribed again", name)
    return report


def _imported(plugin: Plugin) -> HandlerGroup:
    from importlib import import_module  # loaded when first needed

    sys.audit("madcrow_events.load_plugin", plugin.name, plugin.target)
    where = f"its entry point {printable(plugin.entry_point)} = {printable(plugin.target)}"
    fix = "correct it in its pyproject.toml, and install it again"
    if not plugin._module or not plugin._attribute:
        raise PluginError(f"{where} is not of the form module:object: {fix}", plugin=plugin.name)
    outer = CLEARING.get()
    try:
        CLEARING.set(partial(_refuse_clearing, plugin.name))
        thing: Any = import_module(plugin._module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{plugin._module}.".startswith(f"{error.name}."):
            raise
        message = f"{where} names a module that does not exist: {fix}"
        raise PluginError(message, plugin=plugin.name) from error
    finally:
        CLEARING.set(outer)
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


def _refuse_clearing(name: str) -> NoReturn:
    raise PluginError(
        "it clears all handlers as it is imported, those of the application, too: leave that to "
        "its tests",
        plugin=name,
    )


def _refuse_twice(group: HandlerGroup, plugins: dict[str, Any]) -> None:
    for held in list(plugins.values()):
        if held.group is group and held.ticket:
            raise PluginError(
                f"its group is loaded already, as {printable(held.report.plugin.name)}: offer it "
                "under one entry point"
            )


def unload_plugin(
    name: str, *, timeout: float | None = 5.0, signals: SignalRegistry = madcrow_signals
) -> bool:
    """Cancel every subscription of a plugin, and forget the events that it alone knows.

    When it has returned, none of the plugin's handlers starts any more; those that
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
        InvalidOptionError: the name is no string, the timeout no number of seconds, or `signals`
            no registry.
    """
    _check_registry(signals)
    check_seconds("timeout", timeout, allow_zero=True)
    if not isinstance(name, str):
        raise InvalidOptionError(
            f"name is that of a plugin, such as 'acme-alerts:alerts', not {type_name(type(name))}",
            option="name",
        )
    plugins = loaded_in(signals).by_key
    found = [
        held
        for held in list(plugins.values())
        if held.ticket and is_called(held.report.plugin, name.strip())
    ]
    outcomes = [_unload(held, plugins, timeout, signals) for held in found]
    return any(outcomes)


def _forget_signals(report: PluginReport, plugins: dict[str, Any], signals: SignalRegistry) -> None:
    """Forget the events that only an unloaded plugin has declared, and nobody listens to."""
    others = {event for it in list(plugins.values()) if it.ticket for event in events_of(it.group)}
    for event in report.signals:
        signal = signals.get(event)
        # A part of somebody's pattern comes back with the signal.
        if signal is None or not all(map(is_part, signal.subscriptions)):
            continue
        if event not in others:
            forget(signals, signal)


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
        _forget_signals(report, plugins, signals)
    finally:
        del plugins[report.plugin._key]
    if unfinished:
        LOGGER.warning(
            "plugin %s: %d calls of its handlers did not end within %s s, and still run",
            name,
            unfinished,
            timeout,
        )
    LOGGER.info("plugin %s: unloaded", name)
    return True
