"""The context of an emission, in the form that a handler takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from madcrow_events._text import names_apart
from madcrow_events._validation import check_complete, validate_keywords
from madcrow_events.emissions._causes import ids_of
from madcrow_events.emissions._emission import Emission
from madcrow_events.emissions._failures import failures_of
from madcrow_events.emissions._frames import ambient_frame_of
from madcrow_events.exceptions import ContextTypeError, ContextValidationError
from madcrow_events.models import (
    BaseEventContext,
    GenericEventContext,
    fill_loose,
    filled,
    filled_for,
    is_parametrised_as,
    values_for,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from madcrow_events.emissions._policy import Signal

_OF_ITS_OWN = {"__weakref__", "_original", "_validated"}
"""What a twin does not share with the emission."""

__all__ = ["check_given", "context_as", "emission_with", "fill", "keywords_of"]


def fill(signal: Signal, payload: Any, fields: Mapping[str, str]) -> Any:
    """Return a context with those fields of an `event_scope` that the emitter has left out.

    Args:
        signal: the signal that is emitted.
        payload: the context; keywords are filled in as they are, a model is copied.
        fields: the fields of the scope.

    Raises:
        ContextValidationError: the context is incomplete.
    """
    if type(payload) is dict:
        fill_loose(signal.context_model, payload, fields)
        return payload
    try:
        return filled(payload, fields)
    except AttributeError:
        check_complete(signal.name, payload)
        if hasattr(payload, "__pydantic_fields_set__"):
            raise
        return payload  # a model whose `__init__` does not call pydantic's has set all its fields


def check_given(emission: Emission) -> None:
    """Refuse a typed emission whose model lacks fields.

    Raises:
        ContextValidationError: fields are missing.
    """
    if type(emission._payload) is not dict:
        check_complete(emission.event, emission._payload)


def keywords_of(emission: Emission) -> dict[str, Any]:
    """Return the context as keywords, to read or unpack, never to change."""
    payload = emission._payload
    keywords: dict[str, Any] = payload if type(payload) is dict else payload._keywords()
    return keywords


def context_as(models: tuple[type[BaseEventContext], ...], emission: Emission) -> BaseEventContext:
    """Return the context as an instance of one of `models`.

    A loose or generic context is validated once for each model, however many handlers ask for it.

    Raises:
        ContextTypeError: the emission carries another model.
        ContextValidationError: the keywords do not fit the model.
    """
    payload = emission._payload
    if type(payload) in models:  # nearly always
        return payload  # type: ignore[no-any-return]
    is_generic = GenericEventContext in type(payload).__mro__
    if isinstance(payload, models):
        is_asked_for = any(issubclass(it, GenericEventContext) for it in models)
        if not is_generic or is_asked_for or emission.signal.context_model is None:
            return payload
    if type(payload) is dict or is_generic:
        return _validated_as(emission, models)
    if emission.signal._replaces(models) or is_parametrised_as(type(payload), models):
        context: BaseEventContext = payload
        return context
    *expected, carried = names_apart(*models, type(payload))
    raise ContextTypeError(
        f"a handler of {emission.event} takes {' or '.join(expected)}, and the emission carries "
        f"{carried}: emit the former, or annotate the handler with the latter",
        event=emission.event,
        expected=models,
        received=type(payload),
    )


def _validated_as(
    emission: Emission, models: tuple[type[BaseEventContext], ...]
) -> BaseEventContext:
    """Return the payload as the signal's own model, or as the first of `models` that fits."""
    own = emission.signal.context_model
    if own is not None and (issubclass(own, models) or emission.signal._replaces(models)):
        models = (own,)
    elif BaseEventContext in models:
        models = (GenericEventContext,)
    for model in models[:-1]:
        try:
            return _validate(emission, model)
        except ContextValidationError:
            continue
    return _validate(emission, models[-1])


def _validate(emission: Emission, model: type[BaseEventContext]) -> BaseEventContext:
    try:
        known = emission._validated
    except AttributeError:
        known = emission._validated = {}
    outcome = known.get(model)
    if outcome is None:
        payload = emission._payload
        is_loose = type(payload) is dict
        outcome = _outcome(emission, model, payload if is_loose else values_for(payload, model))
        if (
            isinstance(outcome, Exception)
            and is_loose
            and model is not emission.signal.context_model
        ):
            # `event_scope` may have filled in fields that this model does not take by their names.
            ambient = ambient_frame_of(emission)
            if ambient is not None:
                values = filled_for(model, payload, ambient.resolved_fields())
                outcome = _outcome(emission, model, values)
        known[model] = outcome
    if isinstance(outcome, ContextValidationError):
        raise outcome.with_traceback(None)
    return outcome


def _outcome(
    emission: Emission, model: type[BaseEventContext], values: dict[str, Any]
) -> BaseEventContext | ContextValidationError:
    try:
        return validate_keywords(emission.event, model, values)
    except ContextValidationError as error:
        return error


def emission_with(models: tuple[type[BaseEventContext], ...], emission: Emission) -> Emission:
    """Return this emission with its context as a model, for `h(emission: Emission[Model])`.

    A typed emission is returned as it is. For a loose one it is a twin, which carries the model
    and shares everything else, so that the annotation is true in both cases.
    """
    context = context_as(models, emission)
    if context is emission._payload:
        return emission
    failures_of(emission)
    ids_of(emission)
    twin: Emission = Emission()
    for name in Emission.__slots__:
        if name not in _OF_ITS_OWN:
            setattr(twin, name, getattr(emission, name))
    twin._original = emission
    twin._payload = context
    twin._running = False
    return twin
