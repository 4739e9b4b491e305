"""Making a context of keywords, with errors that name fields and types and show no value (G1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from madcrow_events._text import listed, printable, type_name
from madcrow_events.exceptions import ContextValidationError
from madcrow_events.models import (
    RESERVED_FIELDS,
    BaseEventContext,
    GenericEventContext,
    alias_paths,
    spellings_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check_complete", "misfit_behind", "validate_keywords"]


def validate_keywords(
    event: str, model: type[BaseEventContext], keywords: Mapping[str, Any]
) -> BaseEventContext:
    """Make a context of `model` from keywords.

    Raises:
        ContextValidationError: they do not fit. The message names fields and
            types; pydantic's own text is not repeated, for it may hold values.
    """
    if model is GenericEventContext:
        base = BaseEventContext._field_names
        keywords = {
            "event_type": event,
            "data": {name: value for name, value in keywords.items() if name not in base},
            **{name: value for name, value in keywords.items() if name in base},
        }
    try:
        # A copy, for a validator of mode "before" may change it.
        context: object = model.model_validate(dict(keywords))
    except ValidationError as error:
        problems = _problems(model, error)
    else:
        if isinstance(context, model):
            return context
        made = type_name(type(context))
        problems = [(type_name(model), f"a validator made {made} of it, let it return the context")]
    raise _misfit(event, model, problems)


def check_complete(event: str, context: BaseEventContext) -> None:
    """Refuse a context that was made without validation, and is none that handlers can take.

    Such are made by `model_construct`, or by an `__init__` that does not call that of its base.

    Raises:
        ContextValidationError: a field has no value, or an extra one has a name that the call
            of a handler needs.
    """
    model = type(context)
    problems = [
        (name, "has no value, make the context with all fields, not by model_construct")
        for name in model.model_fields
        if name not in vars(context)
    ] + [(name, "belongs to the call, rename it") for name in _reserved(context)]
    if problems:
        raise _misfit(event, model, problems)


def misfit_behind(
    event: str, context: object, error: BaseException
) -> ContextValidationError | None:
    """Return what `check_complete` says of a context, if that is why a handler could not go on.

    Args:
        event: the event.
        context: what it was emitted with.
        error: what was raised. Only what Python itself says of the context is taken for a
            matter of the emitter; all else is the handler's.
    """
    if not isinstance(context, BaseEventContext):
        return None
    if isinstance(error, AttributeError):
        is_of_context = error.obj is context
    elif isinstance(error, TypeError):  # an extra field came in the place of the sender
        is_of_context = bool(_reserved(context))
    else:
        is_of_context = isinstance(error, ContextValidationError) and error.event == event
    if is_of_context:
        try:
            check_complete(event, context)
        except ContextValidationError as misfit:
            return misfit
    return None


def _reserved(context: BaseEventContext) -> frozenset[str]:
    """Return the names of extra fields that the call of a handler needs."""
    return RESERVED_FIELDS.intersection(getattr(context, "__pydantic_extra__", None) or ())


def _misfit(
    event: str, model: type[BaseEventContext], problems: list[tuple[str, str]]
) -> ContextValidationError:
    shown = listed([f"{field}: {problem}" for field, problem in problems], separator="; ")
    message = f"{event} does not fit {type_name(model)}: {shown}"
    return ContextValidationError(message, event=event, problems=tuple(problems))


def _problems(model: type[BaseEventContext], error: ValidationError) -> list[tuple[str, str]]:
    problems: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        location = detail["loc"]
        name, field = _field_at(model, location)
        kind = detail["type"]
        if kind == "missing":
            fix = f"missing, emit it with {field}=..."
        elif kind == "extra_forbidden":
            fix = _fix_for_extra(model, str(location[0]), detail["input"])
        elif kind == "timezone_naive":
            fix = "has no time zone, give an aware one such as datetime.now(UTC)"
        else:
            declared = model.model_fields.get(name)
            wanted = type_name(declared.annotation) if declared is not None else "valid"
            fix = f"must be {wanted}, got {type_name(type(detail['input']))} ({printable(kind)})"
        problems.setdefault(field, fix)
    return list(problems.items())


def _field_at(model: type[BaseEventContext], location: tuple[int | str, ...]) -> tuple[str, str]:
    """Return a field's name, empty if it is none, and the keyword to give it by."""
    if not location:
        return "", type_name(model)
    # pydantic names a field by the alias under which it looked for it.
    for name in model.model_fields:
        if any(location[: len(path)] == path for path in alias_paths(model, name)):
            spelled = spellings_of(model, name)
            return name, printable(spelled[0] if spelled else location[0], limit=60)
    name = str(location[0])
    return name, printable(name, limit=60)


def _fix_for_extra(model: type[BaseEventContext], name: str, value: object) -> str:
    if isinstance(value, BaseEventContext):
        return "a context, which emit takes no keyword for: write emit_typed(event, context)"
    for field in model.model_fields:
        spelled = spellings_of(model, field)
        if name in spelled:
            others = " and ".join(it for it in spelled if it != name)
            return f"given twice, leave out either this or {others}"
        if name == field and spelled:
            return f"is given by its alias, write {spelled[0]}=..."
    return "not a field, leave it out or add it to the model"
