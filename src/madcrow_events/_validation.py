"""Making a context of keywords, with errors that name fields and types and show no value."""

from __future__ import annotations

from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from pydantic import ValidationError

from madcrow_events._aliases import alias_paths, spellings_of, value_at
from madcrow_events._text import printable, type_name
from madcrow_events.exceptions import ContextValidationError
from madcrow_events.models import (
    RESERVED_FIELDS,
    BaseEventContext,
    GenericEventContext,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check_complete", "misfit_behind", "validate_keywords"]

_MOST_PROBLEMS = 20
"""How many problems a message names; whoever chooses the keywords does not choose its length."""


def validate_keywords(
    event: str, model: type[BaseEventContext], keywords: Mapping[str, Any]
) -> BaseEventContext:
    """Make a context of `model` from keywords.

    Raises:
        ContextValidationError: they do not fit. The message names fields and
            types; pydantic's own text is not repeated, for it may hold values.
    """
    if model is GenericEventContext:
        base = BaseEventContext.model_fields
        keywords = {
            "event_type": event,
            "data": {name: value for name, value in keywords.items() if name not in base},
            **{name: value for name, value in keywords.items() if name in base},
        }
    try:
        # A copy, for a validator of mode "before" may change it.
        context: object = model.model_validate(dict(keywords))
    except ValidationError as error:
        problems = _problems(model, keywords, error)
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
        is_known = error.name in type(context).model_fields or str(error.name).startswith(
            "__pydantic"
        )
        is_of_context = error.obj is context and is_known
    elif isinstance(error, TypeError):  # an extra field was taken for the sender
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
    shown = [f"{field}: {problem}" for field, problem in problems[:_MOST_PROBLEMS]]
    if len(problems) > _MOST_PROBLEMS:
        shown.append(f"and {len(problems) - _MOST_PROBLEMS} more")
    message = f"{event} does not fit {type_name(model)}: {'; '.join(shown)}"
    return ContextValidationError(message, event=event, problems=tuple(problems))


def _problems(
    model: type[BaseEventContext], keywords: Mapping[str, Any], error: ValidationError
) -> list[tuple[str, str]]:
    problems: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        location = detail["loc"]
        name, field, path = _field_at(model, location)
        kind, value = printable(detail["type"]), detail["input"]
        given = type_name(type(value))
        declared = model.model_fields.get(name)
        wanted = type_name(declared.annotation) if declared is not None else "valid"
        # The keys on the way may be values of the context; the last one is none in these cases.
        inside = printable(location[-1], limit=60) if len(location) > len(path) else ""
        if kind == "missing":
            fix = f"lacks '{inside}' in it" if inside else f"missing, emit it with {field}=..."
        elif kind == "extra_forbidden" and inside:
            fix = f"has '{inside}' in it, which is not a field there, leave it out"
        elif kind == "extra_forbidden":
            fix = _fix_for_extra(model, str(location[0]), value)
        elif kind == "timezone_naive":
            fix = "has no time zone, give an aware one such as datetime.now(UTC)"
        elif inside and value is not value_at(keywords, path):
            fix = f"must be {wanted}, and something in it is {given} ({kind})"
        elif declared is not None and _is_of(value, declared.annotation):
            fix = f"is of the right type, and its value is refused ({kind})"
        else:
            fix = f"must be {wanted}, got {given} ({kind})"
        problems.setdefault(field, fix)
    return list(problems.items())


def _is_of(value: object, annotation: object) -> bool:
    """Whether a value is of a plain class that an annotation allows."""
    is_union = get_origin(annotation) in (Union, UnionType)
    allowed = get_args(annotation) if is_union else (annotation,)
    return any(type(value) is (get_origin(it) or it) for it in allowed)


def _field_at(
    model: type[BaseEventContext], location: tuple[int | str, ...]
) -> tuple[str, str, tuple[Any, ...]]:
    """Return a field's name, empty if it is none, the keyword to give it by, and where it is."""
    if not location:
        return "", type_name(model), ()
    # pydantic names a field by the alias under which it looked for it.
    for name in model.model_fields:
        for path in alias_paths(model, name):
            if location[: len(path)] == path:
                spelled = spellings_of(model, name)
                keyword = printable(spelled[0] if spelled else location[0], limit=60)
                return name, keyword, path
    name = str(location[0])
    return name, printable(name, limit=60), location[:1]


def _fix_for_extra(model: type[BaseEventContext], name: str, value: object) -> str:
    if isinstance(value, BaseEventContext):
        return "a context, which emit takes no keyword for: write emit_typed(event, context)"
    for field in model.model_fields:
        spelled = spellings_of(model, field)
        if name in spelled:
            places = (path[0] for path in alias_paths(model, field))
            others = " and ".join(it for it in dict.fromkeys((*spelled, *places)) if it != name)
            return f"given twice, leave out either this or {others}"
        if name == field and spelled:
            return f"is given by its alias, write {spelled[0]}=..."
    return "not a field, leave it out or add it to the model"
