"""Loading plugins into a registry, and taking them out again.

A plugin that raises while it is loaded has failed; the application goes on. All of this guards
against accidents, not malice: a plugin is code that runs with all the rights of the application.
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
from madcrow_events.handlers._declaring import (
    end_handlers,
    events_of,
    has_lasting_handlers,
    old_names_of,
    register_wrapped,
)
from madcrow_events.plugins._discovery import LOGGER, Plugin, discover_plugins, is_called
from madcrow_events.plugins._fitness import why_unfit
from madcrow_events.plugins._footprint import Footprint
from madcrow_events.plugins._loaded import Held, loaded_in
from madcrow_events.plugins._policy import why_unwanted
from madcrow_events.plugins._reports import PluginReport, PluginReports, log_report, reason_of
from madcrow_events.signals import SignalRegistry, madcrow_signals
from madcrow_events.signals._old_names import present_name
from madcrow_events.signals._registry import CLEARING, declared_in, forget
from madcrow_events.signals._renaming import take_back
from madcrow_events.subscriptions._subscription import is_part

__all__ = ["load", "load_plugins", "refused", "unload_plugin"]


def load_plugins(
    *,
    allow: Iterable[str] | None = None,
    deny: Iterable[str] | None = None,
    signals: SignalRegistry = madcrow_signals,
) -> PluginReports:
    """Import the installed plugins that you want, and register their groups.

    Of each plugin's group, all events and handlers are registered, or nothing. A plugin that needs
    an event of another plugin is loaded after that one. A plugin that is loaded already stays as it
    is. If all of its handlers were removed since, as by `clear_all_handlers`, they are subscribed
    again.

    A plugin is refused if a deny list names it, or if there is an allow list that does not name it.
    The environment can refuse plugins, too: `MADCROW_EVENTS_DISABLE_PLUGINS=1` refuses all of them.
    `MADCROW_EVENTS_PLUGINS_ALLOW` and `MADCROW_EVENTS_PLUGINS_DENY` are such lists, with commas
    between the entries. If a list is given in both ways, both count.

    The lists keep out plugins that you do not want. They are no authentication, because anybody can
    build a distribution of any name. Before each import, `sys.audit` gets the event
    `madcrow_events.load_plugin`, with the plugin's name and target.

    Args:
        allow: the plugins to load: names of distributions, such as `acme-alerts`, or of single
            plugins, such as `acme-alerts:alerts`. None, the default, allows all.
        deny: the plugins not to load, as for `allow`. An entry may also be the name of an entry
            point alone, such as `alerts`. None, the default, denies none.
        signals: the registry in which the plugins are registered.

    Returns:
        A report for each installed plugin, also for those that were refused. A plugin that raises
            an exception has failed, and the others are loaded.

    Raises:
        InvalidOptionError: a list is not a list of names, or `signals` is not a registry.

    Example:
        ```python
        from madcrow_events import load_plugins

        for report in load_plugins(allow=["acme-alerts", "acme-mail:welcome"]):
            if report.status == "failed":
                print(report)
        ```
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
        group.unregister(signals)  # handlers that it registered itself would bypass the gate
        footprint.refuse_others()
        register_wrapped(group, signals, held.gate.around)
        held.report = report = PluginReport(
            plugin,
            "loaded",
            milliseconds=(time.perf_counter() - began) * 1000,
            signals=tuple(signal.name for signal in footprint.events(group)),
            handlers=tuple(event for event, _ in group.handlers),
        )
        held.old_names = footprint.old_names(group)
        held.group = group
        held.ticket = [True]
    except (Exception, SystemExit) as error:  # a failing plugin must not end the application
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
    """Return the report of a loaded plugin; subscribe its handlers again if all were removed."""
    report: PluginReport = held.report
    reason = "it is being loaded or unloaded already, by another thread or by itself"
    if not held.ticket:
        return PluginReport(plugin, "refused", reason)
    name = printable(report.plugin.name)
    if report.plugin.name != plugin.name:
        other = f"{name} offers the same name, and is loaded: unload_plugin('{name}') first"
        return PluginReport(plugin, "refused", other)
    # A group that has only `once` handlers may have lost them by calling them.
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
    except (Exception, SystemExit) as error:  # a failing plugin must not end the application
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
            message = f"{where} names an object that the module does not have: {fix}"
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
        "its import clears all handlers, those of the application, too: leave that to its tests",
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
    """Cancel every subscription of a plugin, and forget the events that only this plugin declared.

    Old names that only this plugin gave to events are forgotten, too. If a name was an event of its
    own before, it is one again, with the handlers that it had.

    When the function has returned, no handler of the plugin starts any more. It waits for handlers
    that run in other threads. Background calls that are pending are dropped, with a warning in the
    log. To have them done, drain the dispatcher first.

    An event of the plugin stays declared while another handler is subscribed to it by its name. The
    modules of the plugin stay imported. The plugin can be loaded again.

    Args:
        name: the name of the plugin, such as `acme-alerts:alerts`, or of its entry point, or of its
            distribution.
        timeout: how many seconds to wait for calls in other threads; None for no limit, and 0 not
            to wait.
        signals: the registry in which the plugin is registered.

    Returns:
        Whether the plugin was loaded.

    Raises:
        InvalidOptionError: the name is not a string, the timeout is neither None nor a number of
            seconds, 0 or more, or `signals` is not a registry.
    """
    _check_registry(signals)
    check_seconds("timeout", timeout, allow_zero=True)
    if not isinstance(name, str):
        raise InvalidOptionError(
            f"name must name a plugin, such as 'acme-alerts:alerts', not {type_name(type(name))}",
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


def _forget_signals(held: Any, plugins: dict[str, Any], signals: SignalRegistry) -> None:
    """Forget the events and old names that only an unloaded plugin declared.

    An event that has a handler stays.
    """
    others = [it.group for it in list(plugins.values()) if it.ticket]
    events = {present_name(signals, name) for group in others for name in events_of(group)}
    old_names = {name for group in others for name in (*events_of(group), *old_names_of(group))}
    take_back(signals, held.old_names - old_names)
    for signal in declared_in(signals):
        # A subscription by pattern comes back when the event is declared again.
        if (
            signal.name in held.report.signals
            and signal.name not in events
            and all(map(is_part, signal.subscriptions))
        ):
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
        end_handlers(held.group, signals, "unloaded")
        unfinished = held.gate.wait(timeout)
        _forget_signals(held, plugins, signals)
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
