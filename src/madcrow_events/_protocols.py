"""The forms of handlers that a type checker knows (H4).

Annotations that a reader may want to evaluate need their names at run time,
so nothing is imported for type checkers only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, overload

from typing_extensions import TypeVar

from madcrow_events.emissions import Emission
from madcrow_events.models import BaseEventContext

__all__ = ["ContextT", "Handler", "HandlerDecorator", "KeywordHandler"]

ContextT = TypeVar("ContextT", bound=BaseEventContext, default=BaseEventContext)
ResultT = TypeVar("ResultT")


class KeywordHandler(Protocol):
    """The form `handler(sender, **context)`, which every event can call."""

    def __call__(self, sender: Any, /, **context: Any) -> Any: ...


KeywordHandlerT = TypeVar("KeywordHandlerT", bound=KeywordHandler)
BareHandlerT = TypeVar("BareHandlerT", bound="Callable[[], Any]")

Handler: TypeAlias = (
    KeywordHandler
    | Callable[[ContextT], Any]
    | Callable[[Emission[ContextT]], Any]
    | Callable[[], Any]
)
"""What `signal.subscribe` takes; handlers that take fields by name are registered by name (H4)."""


class HandlerDecorator(Protocol[ContextT]):
    """A decorator that subscribes a handler and returns it unchanged (H2)."""

    @overload
    def __call__(self, handler: KeywordHandlerT, /) -> KeywordHandlerT: ...
    @overload
    def __call__(
        self, handler: Callable[[ContextT], ResultT], /
    ) -> Callable[[ContextT], ResultT]: ...
    @overload
    def __call__(
        self, handler: Callable[[Emission[ContextT]], ResultT], /
    ) -> Callable[[Emission[ContextT]], ResultT]: ...
    @overload
    def __call__(self, handler: BareHandlerT, /) -> BareHandlerT: ...
