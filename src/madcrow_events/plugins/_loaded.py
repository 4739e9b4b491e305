"""What is loaded into each registry."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from madcrow_events.plugins._gate import Gate
from madcrow_events.signals._isolation import companion_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from madcrow_events.handlers import HandlerGroup
    from madcrow_events.plugins._reports import PluginReport
    from madcrow_events.signals import EventSignal, SignalRegistry

__all__ = ["Held", "LoadedPlugins", "loaded_in"]


class Held:
    """What is held of one plugin.

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


class LoadedPlugins:
    """The plugins of one registry.

    Attributes:
        by_key: by the key of its entry point, what is held of each that is loaded.
        declared: by name, the events that a plugin's modules declared, each with the module. No
            `isolated` block forgets them, for a module is imported once.
    """

    def __init__(self) -> None:
        self.by_key: dict[str, Any] = {}
        self.declared: dict[str, tuple[tuple[Any, EventSignal[Any]], ...]] = {}

    def save(self, empty: bool, /) -> Callable[[], None]:  # called by isolated()
        """Let an `isolated` block begin; return what undoes it."""
        before = self.by_key
        restore = partial(self._restore, before)
        self.by_key = {} if empty else {**before}  # nothing interrupts between it and the return
        return restore

    def _restore(self, before: dict[str, Any]) -> None:
        self.by_key = before
        for held in before.values():
            held.reinstate()


def loaded_in(signals: SignalRegistry) -> LoadedPlugins:
    """Return the plugins of a registry."""
    return companion_of(signals, LoadedPlugins)
