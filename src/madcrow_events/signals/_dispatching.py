"""Which dispatcher emits the events of a registry where code names none."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar
from weakref import ref

from madcrow_events.exceptions import InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from madcrow_events.dispatcher import EventDispatcher
    from madcrow_events.signals._registry import SignalRegistry

__all__ = ["Dispatching", "adopt", "dismiss", "use_dispatchers"]

_EMITTING = ("emit", "emit_async", "emit_typed", "emit_typed_async")


class Dispatching:
    """The dispatcher of a registry: the first one that was made for it, unless it is assigned.

    Args:
        registry: the registry.

    Attributes:
        used: the dispatcher, once it was asked for or assigned.
        plain: the same, unless its class overrides how it emits; then nothing may be left out.
    """

    __slots__ = ("_first", "_is_kept", "_registry", "plain", "used")

    # How to make a dispatcher, and how to save its observers; the wing of dispatchers says so.
    _make: ClassVar[type[EventDispatcher]]
    _save_observers: ClassVar[Callable[[EventDispatcher], Callable[[], None]]]

    def __init__(self, registry: SignalRegistry) -> None:
        self._registry = registry
        self._is_kept = False  # also when it is closed
        # Weak, because its maker may drop it unused.
        self._first: ref[EventDispatcher] | None = None
        self.use(None)

    def use(self, dispatcher: EventDispatcher | None) -> None:
        """Use a dispatcher from now on; if None, the first one, or a new one."""
        self.plain: EventDispatcher | None = None
        self.used: EventDispatcher | None = dispatcher
        if dispatcher is not None and all(
            getattr(type(dispatcher), name) is getattr(self._make, name) for name in _EMITTING
        ):
            self.plain = dispatcher

    def get(self) -> EventDispatcher:
        """Return the dispatcher; make one if there is none."""
        while (used := self.used) is None:  # again, if another thread closes it meanwhile
            first = self._present_first()
            made = self._make(self._registry) if first is None else first
            with self._registry._lock:
                if self.used is None:
                    self._is_kept = first is None
                    self.use(made)
        return used

    def _present_first(self) -> EventDispatcher | None:
        return None if self._first is None else self._first()

    def assign(self, dispatcher: EventDispatcher) -> None:
        """Use this dispatcher from now on.

        Raises:
            InvalidOptionError: it is no dispatcher, or one of another registry.
        """
        if getattr(dispatcher, "signals", None) is not self._registry:
            raise InvalidOptionError(
                f"the dispatcher of {self._registry._described()} must be an EventDispatcher of "
                "its own events: give EventDispatcher(registry)",
                option="dispatcher",
            )
        self._is_kept = True
        self.use(dispatcher)

    def save(self, empty: bool) -> Callable[[], None]:
        """Begin an `isolated` block, if `empty` without a dispatcher.

        Returns:
            A function that restores the present one, with its observers.
        """
        used, is_kept, first = self.used, self._is_kept, self._first
        present = used or self._present_first()
        restore_observers = None if present is None else type(self)._save_observers(present)
        if empty:
            self._is_kept, self._first = False, None
            self.use(None)

        def restore() -> None:
            self._is_kept, self._first = is_kept, first
            self.use(used)
            if restore_observers is not None:
                restore_observers()

        return restore


def use_dispatchers(
    make: type[EventDispatcher],
    save_observers: Callable[[EventDispatcher], Callable[[], None]],
) -> None:
    """Note how a registry gets its dispatcher; the wing of dispatchers calls this once.

    Args:
        make: the class of dispatchers.
        save_observers: returns a function that restores the present observers of a dispatcher.
    """
    Dispatching._make = make
    Dispatching._save_observers = staticmethod(save_observers)


def adopt(registry: SignalRegistry, dispatcher: EventDispatcher) -> None:
    """Note a new dispatcher, because the registry uses the first one that was made for it."""
    dispatching = registry._dispatching
    if dispatching._present_first() is None:
        dispatching._first = ref(dispatcher)


def dismiss(registry: SignalRegistry, is_closed: Callable[[EventDispatcher], bool]) -> None:
    """Use another dispatcher from now on if the present one was closed, unless it was chosen."""
    dispatching = registry._dispatching
    used, first = dispatching.used, dispatching._present_first()
    if used is not None and not dispatching._is_kept and is_closed(used):
        dispatching.use(None)
    if first is not None and is_closed(first):
        dispatching._first = None
