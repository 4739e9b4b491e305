"""The event loops that an application has named for its async handlers."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["BoundLoops"]


class BoundLoops:
    """The loops that a dispatcher is bound to; the last one that is open counts."""

    __slots__ = ("bindings",)

    def __init__(self) -> None:
        self.bindings: list[Binding] = []

    @property
    def loop(self) -> AbstractEventLoop | None:
        """The application's loop for async handlers whose emitter has none; None if unbound."""
        for binding in reversed(self.bindings):
            if not binding.loop.is_closed():
                return binding.loop
        return None

    def bind(self, loop: AbstractEventLoop) -> Binding:
        """Bind the dispatcher to a loop; return the `with` block that ends the binding."""
        for binding in list(self.bindings):
            if binding.loop.is_closed():
                binding.end()
        binding = Binding(self.bindings, loop)
        self.bindings.append(binding)
        return binding


class Binding:
    """A `with` block in which a dispatcher is bound to a loop; blocks may end in any order.

    Args:
        bindings: all bindings of the dispatcher.
        loop: the application's loop.
    """

    __slots__ = ("_bindings", "loop")

    def __init__(self, bindings: list[Binding], loop: AbstractEventLoop) -> None:
        self._bindings = bindings
        self.loop = loop

    def end(self) -> None:
        """End the binding; a second call does nothing."""
        with suppress(ValueError):
            self._bindings.remove(self)

    def __enter__(self) -> None: ...

    def __exit__(self, *exc_info: object) -> None:
        self.end()
