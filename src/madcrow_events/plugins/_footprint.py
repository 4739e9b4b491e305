"""What a plugin does to a registry while it is loaded, in its group and beside it.

It is told from what other threads do by the modules that handlers and models
come from.
"""

from __future__ import annotations

import functools
import sys
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from madcrow_events._interrupts import is_interrupt, suppress_but_interrupts
from madcrow_events._text import handler_name
from madcrow_events.exceptions import PluginError
from madcrow_events.handlers._declaring import events_of
from madcrow_events.plugins._loaded import loaded_in
from madcrow_events.signals import EventSignal, SignalRegistry, madcrow_signals
from madcrow_events.signals._registry import declare_again, declared_in, forget
from madcrow_events.subscriptions._subscription import next_order, order_of

if TYPE_CHECKING:
    from madcrow_events.handlers import HandlerGroup
    from madcrow_events.plugins._discovery import Plugin
    from madcrow_events.subscriptions import Subscription

__all__ = ["Footprint", "is_of", "outside_of_group"]


class Footprint:
    """What is new in a registry since a plugin began to be loaded, and is the plugin's.

    Its modules are those of its package; or, where the application has imported something of
    that already, no more than the module that the entry point names. A namespace package is
    shared by several distributions: then the plugin's own is the one below it.

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
        self._start = next_order()

    def declare_again(self) -> None:
        """Declare what the plugin's modules declared when they were imported, which is once.

        Raises:
            SignalConflictError: such an event is declared already, with another model.
        """
        for signal in self._remembered():
            declare_again(self._signals, signal)

    def refuse_others(self) -> None:
        """Refuse handlers that the plugin's modules subscribed beside its group.

        Raises:
            PluginError: there is one.
        """
        for subscription in self._subscribed():
            raise PluginError(outside_of_group(subscription), plugin=self._plugin.name)

    def events(self, group: HandlerGroup | None = None) -> list[EventSignal[Any]]:
        """Return the signals that are new, and were declared by the plugin's modules or its group.

        What the modules declared is remembered for the next time.
        """
        new = [it for it in declared_in(self._signals) if it.name not in self._declared]
        own = self._own()
        by_modules = {
            *self._remembered(),
            *(it for it in new if is_of(own, it.context_model)),
        }
        loaded_in(self._signals).declared[self._plugin.name] = tuple(
            (_module_of(signal), signal) for signal in by_modules
        )
        by_group = events_of(group, with_needed=False) if group else set()
        return [signal for signal in new if signal.name in by_group or signal in by_modules]

    def erase(self) -> None:
        """Undo what the plugin's modules did; its group undoes its own part."""
        for subscription in self._subscribed():
            subscription.cancel()
        for signal in self.events():
            forget(self._signals, signal)

    def forget_modules(self) -> None:
        """Let the plugin's modules run again, all of them, as the one does whose import failed.

        Otherwise that one would add to a group, in another module, what it has added before.
        """
        own = self._own()
        for name in set(sys.modules) - self._imported:
            if f"{name}.".startswith(f"{own}."):
                sys.modules.pop(name, None)

    def _remembered(self) -> list[EventSignal[Any]]:
        """Return what modules declared that are still the same, and will not do so again."""
        return [
            signal
            for module, signal in loaded_in(self._signals).declared.get(self._plugin.name, ())
            if module is _module_of(signal) is not None
        ]

    def _subscribed(self) -> list[Subscription]:
        # Decorators act on the default registry, whichever the plugin is loaded into.
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
        # What could be imported of the way to the module tells which packages are shared.
        own = next((it for it in self._packages if not _is_shared(it)), self._plugin._module)
        return self._plugin._module if own in self._imported else own


def _is_shared(package: str) -> bool:
    """Whether an imported package is a namespace, in which each distribution has its own."""
    module: Any = sys.modules.get(package)
    if not hasattr(module, "__path__"):
        return False
    if getattr(module, "__file__", None) is None:
        return True
    called: tuple[str, ...] = ()
    with suppress_but_interrupts(Exception):  # a loader may raise anything
        called = module.__spec__.loader.get_code(package).co_names
    # The two ways from before namespaces needed no code.
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
    """Return what is wrong with a subscription that a plugin's module has made by itself."""
    return (
        f"{handler_name(subscription.handler)} is subscribed to {subscription.event} outside of "
        "the plugin's group, and would outlive it: decorate it with @group.on(...)"
    )
