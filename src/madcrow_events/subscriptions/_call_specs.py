"""How a handler is called, once its signature has been read (H)."""

from __future__ import annotations

from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from madcrow_events._aliases import spellings_of
from madcrow_events._text import handler_name
from madcrow_events.emissions._styles import BY_EMISSION, BY_KEYWORDS
from madcrow_events.exceptions import ContextValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from madcrow_events.emissions import Emission
    from madcrow_events.models import BaseEventContext

__all__ = [
    "ASYNC_RECEIVER",
    "RECEIVER",
    "CallSpec",
    "call_with",
    "context_as",
    "fit_keywords",
    "invoke_by_parameters",
    "invoke_with_context",
    "invoke_with_keywords",
    "invoke_with_list",
    "itself",
    "perhaps_awaited",
    "sender_of",
    "typed_emission",
    "whole_context",
]


class CallSpec:
    """How a handler is called.

    Attributes:
        style: which of the call loop's three ways fits.
        invoke: `invoke(handler, emission)`, the general way.
        fit: `fit(stand_in, emission)`, the same with something else than the handler, and without
            what wraps the calls: makes the arguments, and raises a `ContextValidationError` if the
            call would not take them.
        is_async: whether a call gives a coroutine.
        item: `item(emission)`, what a handler for batches gets of each; None for other handlers.
        invoke_batch: `invoke_batch(handler, items)`, for handlers of batches.
        ask: `ask(when, context)`, for subscriptions with a predicate.
    """

    __slots__ = ("ask", "fit", "invoke", "invoke_batch", "is_async", "item", "style")

    def __init__(
        self,
        style: int,
        invoke: Callable[[Any, Emission[Any]], Any],
        *,
        is_async: bool = False,
        item: Callable[[Emission[Any]], Any] | None = None,
        invoke_batch: Callable[[Any, list[Any]], Any] | None = None,
        ask: Callable[[Any, Mapping[str, Any]], object] | None = None,
        fit: Callable[[Any, Emission[Any]], Any] | None = None,
    ) -> None:
        self.style: int = style
        self.invoke: Callable[[Any, Emission[Any]], Any] = invoke
        self.fit: Callable[[Any, Emission[Any]], Any] = fit or invoke
        self.is_async: bool = is_async
        self.item: Callable[[Emission[Any]], Any] | None = item
        self.invoke_batch: Callable[[Any, list[Any]], Any] = invoke_batch or call_with
        self.ask: Callable[[Any, Mapping[str, Any]], object] = ask or call_with


async def _await_what_can_be(invoke: Callable[[Any, Any], Any], handler: Any, argument: Any) -> Any:
    value = invoke(handler, argument)
    return await value if isawaitable(value) else value


def perhaps_awaited(spec: CallSpec) -> CallSpec:
    """Return the call spec of an async handler that may also return what it would give awaited."""
    return CallSpec(
        BY_EMISSION,
        partial(_await_what_can_be, spec.invoke),
        is_async=True,
        item=spec.item,
        invoke_batch=partial(_await_what_can_be, spec.invoke_batch),
        fit=spec.fit,
    )


def call_with(function: Any, argument: Any) -> Any:
    return function(argument)


def invoke_with_keywords(handler: Any, emission: Emission[Any]) -> Any:
    return handler(emission.sender, **emission._keywords())


RECEIVER = CallSpec(BY_KEYWORDS, invoke_with_keywords)
"""The call spec of every receiver that `connect` takes, whatever its signature."""


ASYNC_RECEIVER = CallSpec(BY_KEYWORDS, invoke_with_keywords, is_async=True)
"""The call spec of an async receiver."""


def sender_of(emission: Emission[Any]) -> Any:
    return emission.sender


def itself(emission: Emission[Any]) -> Emission[Any]:
    return emission


def whole_context(emission: Emission[Any]) -> Any:
    return emission.context


def invoke_with_list(
    item: Callable[[Emission[Any]], Any], handler: Any, emission: Emission[Any]
) -> Any:
    return handler([item(emission)])


def typed_emission(
    models: tuple[type[BaseEventContext], ...], emission: Emission[Any]
) -> Emission[Any]:
    return emission._for_handler_of(models)


def context_as(
    models: tuple[type[BaseEventContext], ...], emission: Emission[Any]
) -> BaseEventContext:
    return emission._context_as(models)


def invoke_with_context(
    models: tuple[type[BaseEventContext], ...], handler: Any, emission: Emission[Any]
) -> Any:
    return handler(emission._context_as(models))


def fit_keywords(
    invoke: Callable[[Any, Emission[Any]], Any],
    required: tuple[str, ...],
    by_place: tuple[str, ...],
    handler: Any,
    emission: Emission[Any],
) -> Any:
    """Do as `invoke`, for a handler with `**kwargs`, once its named parameters have been looked at.

    Raises:
        ContextValidationError: the emission lacks a required one, or has a keyword for one that
            is given by its place.
    """
    context = emission._keywords()
    for name in required:
        if name not in context:
            raise _missing(name, handler, emission)
    for name in by_place:
        if name in context:
            raise ContextValidationError(
                f"{emission.event} was emitted with '{name}', and {handler_name(handler)} takes "
                f"something else there: rename the parameter, or write ({name}, /, **context)",
                event=emission.event,
                problems=((name, "given twice"),),
            )
    return invoke(handler, emission)


def _missing(name: str, handler: Any, emission: Emission[Any]) -> ContextValidationError:
    model = emission.signal.context_model
    is_refused = model and name in model.model_fields and name not in spellings_of(model, name)
    return ContextValidationError(
        f"{emission.event} was emitted without '{name}', which "
        f"{handler_name(handler)} takes by name: emit "
        f"{'a context, by emit_typed' if is_refused else f'it with {name}=...'}, "
        "give the parameter a default, or annotate it with a context model",
        event=emission.event,
        problems=((name, "missing"),),
    )


def invoke_by_parameters(
    positional: tuple[Callable[[Emission[Any]], Any], ...],
    injected: tuple[tuple[str, Callable[[Emission[Any]], Any]], ...],
    by_name: tuple[tuple[str, bool], ...],
    takes_rest: bool,  # noqa: FBT001  # bound once, positionally, by partial
    withheld: frozenset[str],
    handler: Any,
    emission: Emission[Any],
) -> Any:
    arguments = [get(emission) for get in positional]
    keywords = {name: get(emission) for name, get in injected}
    if takes_rest:
        context = emission._keywords()
        if not withheld.isdisjoint(context):  # its wrapper fills these in
            context = {name: context[name] for name in context.keys() - withheld}
        return handler(*arguments, **{**context, **keywords})
    if by_name:
        context = emission._keywords()
        for name, required in by_name:
            if name in context:
                keywords[name] = context[name]
            elif required:
                raise _missing(name, handler, emission)
    return handler(*arguments, **keywords)
