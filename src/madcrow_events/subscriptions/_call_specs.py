"""Calling a handler, once its signature has been read."""

from __future__ import annotations

from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from madcrow_events._aliases import spellings_of
from madcrow_events._text import handler_name
from madcrow_events.emissions._contexts import context_as, keywords_of
from madcrow_events.emissions._plan import CallSpec
from madcrow_events.emissions._styles import BY_EMISSION, BY_KEYWORDS
from madcrow_events.exceptions import ContextValidationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from madcrow_events.emissions import Emission
    from madcrow_events.models import BaseEventContext

__all__ = [
    "ASYNC_RECEIVER",
    "RECEIVER",
    "fit_keywords",
    "invoke_by_parameters",
    "invoke_with_context",
    "invoke_with_keywords",
    "invoke_with_list",
    "itself",
    "perhaps_awaited",
    "sender_of",
    "whole_context",
]


async def _await_what_can_be(
    invoke: Callable[[Any, Any], Any], handler: object, argument: object
) -> Any:
    value = invoke(handler, argument)
    return await value if isawaitable(value) else value


def perhaps_awaited(spec: CallSpec) -> CallSpec:
    """Return the call spec of a handler whose result may have to be awaited, or may not."""
    return CallSpec(
        BY_EMISSION,
        partial(_await_what_can_be, spec.invoke),
        is_async=True,
        item=spec.item,
        invoke_batch=partial(_await_what_can_be, spec.invoke_batch),
        fit=spec.fit,
    )


def invoke_with_keywords(handler: Any, emission: Emission) -> Any:
    return handler(emission.sender, **keywords_of(emission))


RECEIVER = CallSpec(BY_KEYWORDS, invoke_with_keywords)
"""The call spec of every receiver that `connect` takes, whatever its signature."""


ASYNC_RECEIVER = CallSpec(BY_KEYWORDS, invoke_with_keywords, is_async=True)
"""The call spec of an async receiver."""


def sender_of(emission: Emission) -> Any:
    return emission.sender


def itself(emission: Emission) -> Emission:
    return emission


def whole_context(emission: Emission) -> Any:
    return emission.context


def invoke_with_list(item: Callable[[Emission], Any], handler: Any, emission: Emission) -> Any:
    return handler([item(emission)])


def invoke_with_context(
    models: tuple[type[BaseEventContext], ...], handler: Any, emission: Emission
) -> Any:
    return handler(context_as(models, emission))


def fit_keywords(
    invoke: Callable[[Any, Emission], Any],
    required: tuple[str, ...],
    by_place: tuple[str, ...],
    handler: object,
    emission: Emission,
) -> Any:
    """Check the named parameters of a handler with `**kwargs`, and then do as `invoke`.

    Raises:
        ContextValidationError: the emission lacks a required parameter, or has a keyword for a
            parameter that is passed by position.
    """
    context = keywords_of(emission)
    for name in required:
        if name not in context:
            raise _missing(name, handler, emission)
    for name in by_place:
        if name in context:
            raise ContextValidationError(
                f"{emission.event} was emitted with a keyword '{name}', but the parameter "
                f"'{name}' of {handler_name(handler)} already gets the sender, the context or the "
                "emission: rename the parameter, or make it positional-only: "
                f"({name}, /, **context)",
                event=emission.event,
                problems=((name, "given twice"),),
            )
    return invoke(handler, emission)


def _missing(name: str, handler: object, emission: Emission) -> ContextValidationError:
    model = emission.signal.context_model
    is_refused = model and name in model.model_fields and name not in spellings_of(model, name)
    return ContextValidationError(
        f"{emission.event} was emitted without '{name}', which "
        f"{handler_name(handler)} takes by name: emit "
        f"{'a context' if is_refused else f'it with {name}=...'}, "
        "give the parameter a default, or annotate it with a context model",
        event=emission.event,
        problems=((name, "missing"),),
    )


def invoke_by_parameters(
    positional: tuple[Callable[[Emission], Any], ...],
    injected: tuple[tuple[str, Callable[[Emission], Any]], ...],
    by_name: tuple[tuple[str, bool], ...],
    takes_rest: bool,  # bound once, positionally, by partial
    withheld: frozenset[str],
    handler: Any,
    emission: Emission,
) -> Any:
    arguments = [get(emission) for get in positional]
    keywords = {name: get(emission) for name, get in injected}
    if takes_rest:
        context = keywords_of(emission)
        if not withheld.isdisjoint(context):  # the wrapper of the handler fills these in
            context = {name: context[name] for name in context.keys() - withheld}
        return handler(*arguments, **{**context, **keywords})
    if by_name:
        context = keywords_of(emission)
        for name, required in by_name:
            if name in context:
                keywords[name] = context[name]
            elif required:
                raise _missing(name, handler, emission)
    return handler(*arguments, **keywords)
