"""The types of handlers, for type checkers.

These annotations may be evaluated at run time, so nothing is imported for type checkers only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeAlias, overload

from typing_extensions import TypeVar

from madcrow_events.emissions import Emission
from madcrow_events.models import BaseEventContext

__all__ = [
    "BatchHandler",
    "BatchHandlerDecorator",
    "ContextT",
    "Handler",
    "HandlerDecorator",
    "KeywordHandler",
]

ContextT = TypeVar("ContextT", bound=BaseEventContext, default=BaseEventContext)
ContextT_contra = TypeVar("ContextT_contra", bound=BaseEventContext, contravariant=True)
ItemT = TypeVar("ItemT", bound=BaseEventContext)
ResultT = TypeVar("ResultT")
ResultT_co = TypeVar("ResultT_co", covariant=True)
Parameters = ParamSpec("Parameters")


class KeywordHandler(Protocol):
    """A handler of the form `handler(sender, **context)`, which fits every event."""

    def __call__(self, sender: Any, /, **context: Any) -> Any: ...


KeywordHandlerT = TypeVar("KeywordHandlerT", bound=KeywordHandler)
BareHandlerT = TypeVar("BareHandlerT", bound="Callable[[], Any]")

Handler: TypeAlias = (
    KeywordHandler
    | Callable[[ContextT], Any]
    | Callable[[Emission[ContextT]], Any]
    | Callable[[], Any]
)
"""A handler for `signal.subscribe`.

Type checkers do not know handlers that take fields by name. Subscribe these with `on_event` or
`register_handler`.
"""

BatchHandler: TypeAlias = (
    Callable[[list[ContextT]], Any] | Callable[[list[Emission[ContextT]]], Any]
)
"""A handler for `signal.subscribe` with the option `batch`."""


# A function fits one of these two protocols if it fits both overloads. The first is the call that
# the event makes; the second captures the function's own signature, which the decorator returns.


class _TakesContext(Protocol[ContextT_contra, Parameters, ResultT_co]):  # pyright: ignore[reportInvalidTypeVarUse]  # the second overload hides the first from its check of variance
    @overload
    def __call__(self, context: ContextT_contra, /) -> Any: ...
    @overload
    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> ResultT_co: ...


class _TakesEmission(Protocol[ContextT_contra, Parameters, ResultT_co]):  # pyright: ignore[reportInvalidTypeVarUse]  # the second overload hides the first
    @overload
    def __call__(self, emission: Emission[ContextT_contra], /) -> Any: ...
    @overload
    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> ResultT_co: ...


class HandlerDecorator(Protocol[ContextT]):  # pyright: ignore[reportInvalidTypeVarUse]  # mypy takes it for invariant
    """The decorator that `signal.on()` returns; it returns the handler unchanged."""

    @overload
    def __call__(self, handler: KeywordHandlerT, /) -> KeywordHandlerT: ...
    @overload
    def __call__(
        self, handler: _TakesContext[ContextT, Parameters, ResultT], /
    ) -> Callable[Parameters, ResultT]: ...
    @overload
    def __call__(
        self, handler: _TakesEmission[ContextT, Parameters, ResultT], /
    ) -> Callable[Parameters, ResultT]: ...
    @overload
    def __call__(self, handler: BareHandlerT, /) -> BareHandlerT: ...


class _TakesContexts(Protocol[ItemT, Parameters, ResultT_co]):  # pyright: ignore[reportInvalidTypeVarUse]  # the second overload hides the first
    @overload
    def __call__(self, contexts: list[ItemT], /) -> Any: ...
    @overload
    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> ResultT_co: ...


class _TakesEmissions(Protocol[ItemT, Parameters, ResultT_co]):  # pyright: ignore[reportInvalidTypeVarUse]  # the second overload hides the first
    @overload
    def __call__(self, emissions: list[Emission[ItemT]], /) -> Any: ...
    @overload
    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> ResultT_co: ...


class BatchHandlerDecorator(Protocol[ContextT]):  # pyright: ignore[reportInvalidTypeVarUse]  # mypy takes it for invariant
    """The decorator that `signal.on(batch=...)` returns; it returns the handler unchanged."""

    @overload
    def __call__(
        self, handler: _TakesContexts[ContextT, Parameters, ResultT], /
    ) -> Callable[Parameters, ResultT]: ...
    @overload
    def __call__(
        self, handler: _TakesEmissions[ContextT, Parameters, ResultT], /
    ) -> Callable[Parameters, ResultT]: ...
