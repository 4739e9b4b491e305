"""The plugins that are loaded into each registry."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from madcrow_events._text import printable
from madcrow_events.plugins._gate import Gate
from madcrow_events.signals._isolation import companion_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from madcrow_events.handlers import HandlerGroup
    from madcrow_events.plugins._reports import PluginReport
    from madcrow_events.signals import EventSignal, SignalRegistry

__all__ = ["Held", "LoadedPlugins", "loaded_in"]


class Held:
    """The state of one loaded plugin.

    Attributes:
        ticket: empty while the plugin is being loaded or unloaded. A thread that wants to unload
            the plugin pops the one item, so only one thread can.
        old_names: the old names that the plugin's group has given to events.
    """

    def __init__(self) -> None:
        self.gate = Gate()
        self.ticket: list[bool] = []
        self.group: HandlerGroup | None = None
        self.report: PluginReport | None = None
        self.old_names: frozenset[str] = frozenset()

    def reinstate(self) -> None:
        """Make the plugin count as loaded again, at the end of an `isolated` block."""
        if self.report is not None:
            self.gate.open()
            self.ticket = [True]


class LoadedPlugins:
    """The plugins of one registry.

    Attributes:
        by_key: the state of each loaded plugin, by the key of its entry point.
        declared: the events that each plugin's modules declared, by the plugin's name, each event
            with its module and its old names. No `isolated` block forgets them, because modules
            are imported once.
    """

    def __init__(self) -> None:
        self.by_key: dict[str, Any] = {}
        self.declared: dict[str, tuple[tuple[Any, EventSignal[Any], tuple[str, ...]], ...]] = {}

    def save(self, empty: bool, /) -> Callable[[], None]:  # called by isolated()
        """Begin an `isolated` block; return the function that ends it."""
        before = self.by_key
        restore = partial(self._restore, before)
        self.by_key = {} if empty else {**before}  # nothing can interrupt before the return
        return restore

    def described(self, origin: object, /) -> str | None:
        """Return the plugin whose group an origin is, for `explain`; else None."""
        for held in list(self.by_key.values()):
            if held.group is origin:
                return f"plugin {printable(held.report.plugin.name)}"
        return None

    def _restore(self, before: dict[str, Any]) -> None:
        self.by_key = before
        for held in before.values():
            held.reinstate()


def loaded_in(signals: SignalRegistry) -> LoadedPlugins:
    """Return the plugins of a registry."""
    return companion_of(signals, LoadedPlugins)
