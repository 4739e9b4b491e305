"""Checking that a context, or keywords, fit an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from madcrow_events._text import names_apart, type_name
from madcrow_events._validation import validate_keywords
from madcrow_events.emissions._frames import ambient_frame_of, current
from madcrow_events.exceptions import ContextTypeError
from madcrow_events.models import (
    BaseEventContext,
    GenericEventContext,
    fill_loose,
    is_parametrised_as,
    note_fields,
)
from madcrow_events.signals._models import call_for
from madcrow_events.signals._old_names import means
from madcrow_events.signals._signal import check_model, renewed_context

if TYPE_CHECKING:
    from madcrow_events.signals import EventSignal

__all__ = ["check_loose", "fitting", "refuse_second_context"]

# An instance of one of these, given as the sender, is surely meant as the context.
_CONTEXTS = frozenset({BaseEventContext, dict})


def check_loose(
    signal: EventSignal[Any], sender: object, context: dict[str, Any], *, validate: bool
) -> None:
    """Refuse a context that is given as the sender, and keywords that do not fit.

    Args:
        signal: the signal of the event.
        sender: who emits.
        context: the keywords; the enclosing `event_scope` adds its fields here.
        validate: whether the keywords must fit the signal's model.

    Raises:
        ContextTypeError: the sender is a context.
        ContextValidationError: the keywords do not fit.
    """
    try:
        is_sender = sender is None or _CONTEXTS.isdisjoint(type(sender).__mro__)
    except TypeError:  # a metaclass gives one of these classes no hash
        is_sender = not any(it is BaseEventContext or it is dict for it in type(sender).__mro__)
    if not is_sender:
        raise ContextTypeError(
            f"a context was given as the sender: {call_for(signal, type(sender))}",
            event=signal.name,
            received=type(sender),
        )
    if validate and signal.context_model is not None:
        ambient = ambient_frame_of(current())
        if ambient is not None:
            fill_loose(signal.context_model, context, ambient.resolved_fields())
        validate_keywords(signal.name, signal.context_model, context)


def refuse_second_context(signal: EventSignal[Any], sender: object) -> None:
    """Refuse a context that is given as the sender, beside the one to emit.

    Raises:
        ContextTypeError: the sender is a context.
    """
    # Not by a set, because a metaclass may give a class no hash.
    if any(it is BaseEventContext for it in type(sender).__mro__):
        raise ContextTypeError(
            f"{signal.name} was emitted with a second context, as the sender: emit each context "
            "with a call of its own",
            event=signal.name,
            received=type(sender),
        )


def fitting(
    signal: EventSignal[Any], context: Any
) -> tuple[BaseEventContext, BaseEventContext | None]:
    """Return the context to emit, and the same again (else None) if it is of the signal's model.

    Returns:
        The context; then the same, or None if it is a `GenericEventContext`.

    Raises:
        ContextTypeError: the context is neither of the model nor generic.
        ContextValidationError: it is of a model that was replaced, and does not fit the new one.
    """
    model = signal.context_model
    expected = BaseEventContext if model is None else model
    if isinstance(context, GenericEventContext) and expected is not GenericEventContext:
        note_fields(type(context))
        try:
            if means(signal, context.event_type):
                return context, None
        except AttributeError:  # it has no `event_type`: made by model_construct, say
            pass
        raise ContextTypeError(
            f"a GenericEventContext for another event was emitted as {signal.name}: "
            f"give it event_type='{signal.name}'",
            event=signal.name,
            expected=(expected,),
            received=GenericEventContext,
        )
    if isinstance(context, expected) or is_parametrised_as(type(context), (expected,)):
        fits: BaseEventContext = context
        check_model(signal.name, type(context))
        return fits, fits
    renewed = renewed_context(signal, context)
    if renewed is not None:
        return renewed, renewed
    is_class = isinstance(context, type)
    given, wanted = names_apart(context if is_class else type(context), expected)
    if is_class:
        given = f"the class {given}"
    if model is None:
        wanted = "a context derived from BaseEventContext"
    raise ContextTypeError(
        f"{signal.name} carries {wanted}, not {given}: emit {type_name(expected)}(...), or plain "
        f"keywords, as in emit('{signal.name}', field=...)",
        event=signal.name,
        expected=(expected,),
        received=type(context),
    )
