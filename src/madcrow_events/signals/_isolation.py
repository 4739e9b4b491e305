"""Undoing whatever a test does to a registry."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from itertools import repeat
from typing import TYPE_CHECKING, Protocol, cast

from typing_extensions import TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from madcrow_events.signals._registry import SignalRegistry

__all__ = ["Companion", "SavedRegistry", "companion_of", "isolate_too", "isolated"]


class Companion(Protocol):
    """What a wing above keeps beside each registry."""

    def save(self, empty: bool, /) -> Callable[[], None]:  # mapped
        """Begin an `isolated` block, perhaps with nothing; return what restores the present."""
        ...


CompanionT = TypeVar("CompanionT", bound=Companion)


@contextmanager
def isolated(registry: SignalRegistry, *, empty: bool) -> Iterator[None]:
    """Undo, when the block ends, whatever it did to a registry; see `SignalRegistry.isolated`.

    Args:
        registry: the registry.
        empty: whether to start with the built-in events and no handler.

    Raises:
        RuntimeError: blocks end in another order than they were nested in.
    """
    saved = SavedRegistry(registry)
    try:
        saved.set_aside(empty=empty)
        yield
    finally:
        in_order = registry._isolations[-1:] == [saved]
        try:
            saved.restore()
        except BaseException:
            saved.restore()  # once more, for that was interrupted
            raise
        if not in_order:
            raise RuntimeError("isolated() blocks must end in the reverse order of their start")


class SavedRegistry:
    """What a registry held when a block began."""

    def __init__(self, registry: SignalRegistry) -> None:
        self._registry = registry
        self._signals = {signal.name: signal for signal in registry._declared()}
        self._set_aside = registry._set_aside
        self._recordings = list(registry._recordings)
        self._patterns = registry._patterns.live()
        self._models = [
            (it, it.context_model, it._execution, it._replaced) for it in registry._declared()
        ]
        self._handlers = [(it._table, it._table.live()) for it in registry._declared()]
        self._restore_others: list[Callable[[], None]] = []

    def set_aside(self, *, empty: bool) -> None:
        """Let the block begin with copies, or with nothing."""
        registry = self._registry
        registry._isolations.append(self)
        # Each is noted in the step that saves it.
        self._restore_others.extend(map(_saved, registry._other_states, repeat(empty)))
        if empty:
            registry._set_aside = {**self._set_aside, **self._signals}
            registry._clear_handlers()
            for name in self._signals.keys() - set(registry._built_in):
                del registry[name]

    def restore_too(self, restore: Callable[[], None]) -> None:
        """Restore one more piece of state, which is saved already."""
        self._restore_others.append(restore)

    def restore(self) -> None:
        """Let it hold that again, and nothing else; doing so again is no error."""
        registry = self._registry
        registry._set_aside = self._set_aside
        for block in list(registry._recordings):
            if block not in self._recordings:
                block.close()
        registry._patterns.restore(self._patterns)
        for signal in registry._declared():
            if self._signals.get(signal.name) is not signal:
                signal._table.restore(())
                del registry[signal.name]
        dict.update(registry, self._signals)
        for signal, model, execution, replaced in self._models:
            if signal.context_model is not model:
                signal._replaced = replaced
                signal._carry(model, execution)
        for table, subscriptions in self._handlers:
            table.restore(subscriptions)
        for restore in self._restore_others:
            restore()
        with suppress(ValueError):  # with all that began in it, and has not ended
            del registry._isolations[registry._isolations.index(self) :]


def _saved(save: Callable[[bool], Callable[[], None]], empty: bool) -> Callable[[], None]:  # mapped
    return save(empty)


def isolate_too(registry: SignalRegistry, save: Callable[[bool], Callable[[], None]]) -> None:
    """Let `isolated` restore one more piece of state, in blocks that have begun, too.

    The wings above call it, for what they keep beside a registry: the default dispatcher, the
    stores of the ready-made handlers.

    Args:
        registry: the registry.
        save: called with `empty` as a block starts; returns what restores the state.
    """
    registry._other_states.append(save)
    for block in list(registry._isolations):
        block.restore_too(save(False))  # mapped elsewhere


def companion_of(registry: SignalRegistry, kind: type[CompanionT]) -> CompanionT:
    """Return what a wing above keeps beside a registry, made when it is first asked for.

    The plugins call it, for what they have loaded into the registry.

    Args:
        registry: the registry, which keeps one of each kind.
        kind: its class; `isolated` restores it.
    """
    companion = registry._companions.get(kind)
    if companion is None:
        made = kind()
        isolate_too(registry, made.save)
        companion = registry._companions.setdefault(kind, made)  # or another thread's
    return cast("CompanionT", companion)
