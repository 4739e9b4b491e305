"""The changes that loading a plugin makes to a registry, in its group and outside of it.

Other threads may change the registry at the same time. A change counts as the plugin's if its
handler or model comes from one of the plugin's modules.
"""

from __future__ import annotations

import functools
import sys
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from madcrow_events._interrupts import is_interrupt, suppress_but_interrupts
from madcrow_events._text import handler_name
from madcrow_events.exceptions import PluginError
from madcrow_events.handlers._declaring import events_of, old_names_of
from madcrow_events.plugins._loaded import loaded_in
from madcrow_events.signals import EventSignal, SignalRegistry, madcrow_signals
from madcrow_events.signals._declaring import declare
from madcrow_events.signals._old_names import old_names_in
from madcrow_events.signals._registry import declared_in, forget
from madcrow_events.subscriptions._subscription import next_order, order_of

if TYPE_CHECKING:
    from madcrow_events.handlers import HandlerGroup
    from madcrow_events.plugins._discovery import Plugin
    from madcrow_events.subscriptions import Subscription

__all__ = ["Footprint", "is_of", "outside_of_group"]


class Footprint:
    """The handlers and events that a plugin has added to a registry since its load began.

    The plugin's modules are those of its package. Where the application has imported something
    of that package already, only the module that the entry point names counts. A namespace
    package is shared by several distributions: there, the package below it is the plugin's own.

    Args:
        plugin: the plugin, which is not imported yet.
        signals: the registry.
    """

    def __init__(self, plugin: Plugin, signals: SignalRegistry) -> None:
        self._packages = list(accumulate(plugin._module.split("."), "{}.{}".format))
        self._imported = set(sys.modules)
        self._plugin = plugin
        self._signals = signals
        self._declared = set(signals)
        self._old_names = old_names_in(signals)
        self._start = next_order()

    def declare_again(self) -> None:
        """Declare again the events that the plugin's modules declared when they were imported.

        Raises:
            SignalConflictError: one of these events is declared already, with another model or key.
        """
        for signal, formerly in self._remembered().items():
            declare(
                self._signals,
                signal.name,
                signal.doc,
                signal.context_model,
                formerly,
                key=signal.key,
                again=signal,
            )

    def refuse_others(self) -> None:
        """Refuse handlers that the plugin's modules subscribed outside of its group.

        Raises:
            PluginError: there is one.
        """
        for subscription in self._subscribed():
            raise PluginError(outside_of_group(subscription), plugin=self._plugin.name)

    def events(self, group: HandlerGroup | None = None) -> list[EventSignal[Any]]:
        """Return the new signals that the plugin's modules or its group declared.

        Those of the modules are remembered for the next load, because modules are imported once.
        """
        new = [it for it in declared_in(self._signals) if it.name not in self._declared]
        own = self._own()
        by_modules = self._remembered()
        by_modules |= {it: it.formerly for it in new if is_of(own, it.context_model)}
        loaded_in(self._signals).declared[self._plugin.name] = tuple(
            (_module_of(signal), signal, formerly) for signal, formerly in by_modules.items()
        )
        by_group = events_of(group, with_needed=False) if group else set()
        return [signal for signal in new if signal.name in by_group or signal in by_modules]

    def old_names(self, group: HandlerGroup) -> frozenset[str]:
        """Return the new old names that the plugin's group gave to events."""
        return (old_names_in(self._signals) - self._old_names) & old_names_of(group)

    def erase(self) -> None:
        """Undo what the plugin's modules did; its group undoes its own part."""
        for subscription in self._subscribed():
            subscription.cancel()
        for signal in self.events():
            forget(self._signals, signal)

    def forget_modules(self) -> None:
        """Let all modules of the plugin run again at the next import.

        Python itself forgets only the module whose import failed. That module would then run
        twice, and add its handlers twice to a group that lives in another module.
        """
        own = self._own()
        for name in set(sys.modules) - self._imported:
            if f"{name}.".startswith(f"{own}."):
                sys.modules.pop(name, None)

    def _remembered(self) -> dict[EventSignal[Any], tuple[str, ...]]:
        """Return the signals of modules that stay imported, each with its old names.

        Such a module will not declare its signals again by itself.
        """
        return {
            signal: formerly
            for module, signal, formerly in loaded_in(self._signals).declared.get(
                self._plugin.name, ()
            )
            if module is _module_of(signal) is not None
        }

    def _subscribed(self) -> list[Subscription]:
        # Decorators subscribe to the default registry, whichever the plugin is loaded into.
        own = self._own()
        registries = {id(registry): registry for registry in (self._signals, madcrow_signals)}
        return [
            subscription
            for registry in registries.values()
            for subscription in registry.subscriptions
            if order_of(subscription) > self._start and is_of(own, subscription.handler)
        ]

    def _own(self) -> str:
        """Return the package, or the module, whose handlers and models are the plugin's."""
        # Only a package that was imported can be known as shared.
        own = next((it for it in self._packages if not _is_shared(it)), self._plugin._module)
        return self._plugin._module if own in self._imported else own


def _is_shared(package: str) -> bool:
    """Whether an imported package is a namespace package, which several distributions share."""
    module: Any = sys.modules.get(package)
    if not hasattr(module, "__path__"):
        return False
    if getattr(module, "__file__", None) is None:
        return True
    called: tuple[str, ...] = ()
    with suppress_but_interrupts(Exception):  # a loader may raise anything
        called = module.__spec__.loader.get_code(package).co_names
    # Older namespace packages call one of these two functions.
    return not {"extend_path", "declare_namespace"}.isdisjoint(called)


def _module_of(signal: EventSignal[Any]) -> Any:
    return sys.modules.get(str(getattr(signal.context_model, "__module__", None)))


def is_of(own: str, thing: object) -> bool:
    """Whether a handler or a model comes from a module, or from one below it."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    try:
        module = str(thing.__module__)
    except Exception as error:  # a proxy may raise anything
        if is_interrupt(error):
            raise
        return False
    return f"{module}.".startswith(f"{own}.")


def outside_of_group(subscription: Subscription) -> str:
    """Return a message that refuses a subscription which a plugin's module made by itself."""
    return (
        f"{handler_name(subscription.handler)} is subscribed to {subscription.event} outside of "
        "the plugin's group, and would outlive it: decorate it with @group.on(...)"
    )
