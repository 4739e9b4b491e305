"""Undoing whatever a test does to a registry."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from madcrow_events.signals._registry import SignalRegistry
    from madcrow_events.subscriptions._table import Recording

__all__ = ["isolated"]


@contextmanager
def isolated(registry: SignalRegistry, *, empty: bool) -> Iterator[None]:
    """Undo, when the block ends, whatever it did to a registry; see `SignalRegistry.isolated`.

    Args:
        registry: the registry.
        empty: whether to start with the built-in events and no handler.

    Raises:
        RuntimeError: blocks end in another order than they were nested in.
    """
    mark = object()
    signals, set_aside = {s.name: s for s in registry._declared()}, registry._set_aside
    plugins, recordings = registry._plugins, list(registry._recordings)
    patterns = registry._patterns.live()
    handlers = [(signal._table, signal._table.live()) for signal in registry._declared()]
    restore_others = [save(empty) for save in registry._other_states]
    registry._isolations.append(mark)
    registry._plugins = {} if empty else {**plugins}
    if empty:
        registry._set_aside = {**set_aside, **signals}
        registry.clear_handlers()
        for name in signals.keys() - set(registry._built_in):
            del registry[name]
    try:
        yield
    finally:
        in_order = registry._isolations.pop() is mark
        registry._set_aside, registry._plugins = set_aside, plugins
        _undo(registry, plugins, recordings)
        registry._patterns.restore(patterns)
        for signal in registry._declared():
            if signals.get(signal.name) is not signal:
                signal._table.restore(())
                del registry[signal.name]
        dict.update(registry, signals)
        for table, subscriptions in handlers:
            table.restore(subscriptions)
        for restore in restore_others:
            restore()
        if not in_order:
            raise RuntimeError("isolated() blocks must end in the reverse order of their start")


def _undo(registry: SignalRegistry, plugins: dict[str, Any], recordings: list[Recording]) -> None:
    for held in plugins.values():
        held.reinstate()
    for block in list(registry._recordings):
        if block not in recordings:
            block.close()
