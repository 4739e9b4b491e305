"""Restoring a registry after a test."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from itertools import repeat
from typing import TYPE_CHECKING, Protocol, cast

from typing_extensions import TypeVar

from madcrow_events.signals._old_names import acting, become, become_itself
from madcrow_events.subscriptions._subscription import end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from madcrow_events.signals._registry import SignalRegistry

__all__ = ["Companion", "SavedRegistry", "companion_of", "isolate_too", "isolated"]


class Companion(Protocol):
    """State that a higher wing keeps beside each registry."""

    def save(self, empty: bool, /) -> Callable[[], None]:
        """Begin an `isolated` block, if `empty` without any state.

        Returns:
            A function that restores the present state.
        """
        ...

    def described(self, origin: object, /) -> str | None:
        """Return what the origin of a subscription is called, if it is known here; else None."""
        ...


CompanionT = TypeVar("CompanionT", bound=Companion)


@contextmanager
def isolated(registry: SignalRegistry, *, empty: bool) -> Iterator[None]:
    """Restore a registry when the block ends; see `SignalRegistry.isolated`.

    Args:
        registry: the registry.
        empty: whether to start with the built-in events and no handler.

    Raises:
        RuntimeError: nested blocks end in another order than from the inside out.
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
            saved.restore()  # once more: the first call was interrupted
            raise
        if not in_order:
            raise RuntimeError("isolated() blocks must end in the reverse order of their start")


class SavedRegistry:
    """The state of a registry as a block began."""

    def __init__(self, registry: SignalRegistry) -> None:
        self._registry = registry
        self._signals = {signal.name: signal for signal in registry._declared()}
        self._set_aside = registry._set_aside
        self._former = registry._former
        # Those of events that were forgotten under their new name act as these for good.
        self._acting = acting([*self._signals.values(), *registry._set_aside.values()])
        self._warned = registry._warned
        self._recordings = list(registry._recordings)
        self._patterns = [(it, it.pattern) for it in registry._patterns.live()]
        self._models = [
            (it, it.context_model, it._execution, it._replaced, it.doc)
            for it in self._signals.values()
        ]
        self._keys = [(it, it.key, it._key_execution, it._place) for it in self._signals.values()]
        self._handlers = [
            (name, it._table, it._table.saved()) for name, it in self._signals.items()
        ]
        self._restore_others: list[Callable[[], None]] = []

    def set_aside(self, *, empty: bool) -> None:
        """Begin the block, with the present state, or with built-in events only."""
        registry = self._registry
        registry._isolations.append(self)
        # One step saves a state and notes how to restore it, so that an interrupt loses none.
        self._restore_others.extend(map(_saved, registry._other_states, repeat(empty)))
        registry._warned = {}  # each test is told of the old names that it uses
        if empty:
            registry._set_aside = {**self._set_aside, **self._signals}
            registry._clear_handlers("isolated")
            if registry._former:
                registry._former = {}  # those of built-in events, too
            for name in self._signals.keys() - set(registry._built_in):
                del registry[name]

    def _forget_new(self) -> None:
        for signal in self._registry._declared():
            if self._signals.get(signal.name) is not signal:
                signal._table.clear("isolated")
                del self._registry[signal.name]

    def _take_apart(self) -> None:
        """End what events have taken over from others since the block began."""
        for _, _, saved in self._handlers:
            for subscription in saved.handlers():
                end(subscription, None)  # in the table that has it now; `restore` restores it
        for signal in (*self._signals.values(), *self._set_aside.values()):
            become_itself(signal)

    def _put_together(self) -> None:
        """Let the old names have the meaning that they had as the block began."""
        for former in self._former.values():
            if former.own is not None:
                become(former.own, former.signal)
        self._registry._former = self._former

    def _restore_declarations(self) -> None:
        for signal, model, execution, replaced, doc in self._models:
            if signal.context_model is not model:
                signal._replaced = replaced
                signal._carry(model, execution)
            signal._describe(doc)
        for signal, key, execution, place in self._keys:
            signal._note_declaration(key, execution, place)

    def restore_too(self, restore: Callable[[], None]) -> None:
        """Restore one more piece of state, which has been saved.

        Args:
            restore: restores it.
        """
        self._restore_others.append(restore)

    def restore(self) -> None:
        """Give the registry this state again; a second call does nothing."""
        registry = self._registry
        registry._set_aside = self._set_aside
        registry._warned = self._warned
        registry._models.forget()
        for block in list(registry._recordings):
            if block not in self._recordings:
                block.close()
        registry._patterns.restore(self._patterns)
        is_renamed = registry._former is not self._former
        if is_renamed:
            self._take_apart()
        self._forget_new()
        if is_renamed:
            self._put_together()
        for own, signal in self._acting:
            become(own, signal)
        dict.update(registry, self._signals)
        self._restore_declarations()
        registry._models.forget()
        for event, table, handlers in self._handlers:
            table.restore(event, handlers)
        for restore in self._restore_others:
            restore()
        with suppress(ValueError):  # the block, and blocks in it that have not ended
            del registry._isolations[registry._isolations.index(self) :]


def _saved(save: Callable[[bool], Callable[[], None]], empty: bool) -> Callable[[], None]:
    return save(empty)


def isolate_too(registry: SignalRegistry, save: Callable[[bool], Callable[[], None]]) -> None:
    """Make `isolated` restore one more piece of state, also in blocks that have begun.

    Higher wings call it for what they keep beside a registry: the stores of
    the ready-made handlers.

    Args:
        registry: the registry.
        save: called with `empty` as a block starts; returns a function that restores the state.
    """
    registry._other_states.append(save)
    for block in list(registry._isolations):
        block.restore_too(save(False))


def companion_of(registry: SignalRegistry, kind: type[CompanionT]) -> CompanionT:
    """Return the state that a higher wing keeps beside a registry; the first call makes it.

    The plugins keep there what they have loaded into the registry.

    Args:
        registry: the registry, which keeps one object of each kind.
        kind: the class of that object, which `isolated` restores.
    """
    companion = registry._companions.get(kind)
    if companion is None:
        made = kind()
        isolate_too(registry, made.save)
        companion = registry._companions.setdefault(kind, made)  # or another thread's
    return cast("CompanionT", companion)
