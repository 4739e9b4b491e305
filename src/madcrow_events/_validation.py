"""Making contexts of keywords; errors name fields and types, and show no value."""

from __future__ import annotations

from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from pydantic import ValidationError

from madcrow_events._aliases import alias_paths, spellings_of, value_at
from madcrow_events._text import names_apart, printable, type_name
from madcrow_events.exceptions import ContextValidationError
from madcrow_events.models import (
    RESERVED_FIELDS,
    BaseEventContext,
    GenericEventContext,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check_complete", "fix_for_context", "misfit_behind", "validate_keywords"]

_MOST_PROBLEMS = 20
"""How many problems a message names; whoever chooses the keywords does not choose its length."""


def validate_keywords(
    event: str, model: type[BaseEventContext], keywords: Mapping[str, Any]
) -> BaseEventContext:
    """Make a context of `model` from keywords.

    Raises:
        ContextValidationError: they do not fit. The message names fields and
            types. It does not repeat pydantic's text, which may hold values.
    """
    if model is GenericEventContext:
        base = BaseEventContext.model_fields
        keywords = {
            "event_type": event,
            "data": {name: value for name, value in keywords.items() if name not in base},
            **{name: value for name, value in keywords.items() if name in base},
        }
    try:
        # A copy, because a validator of mode "before" may change it.
        context: object = model.model_validate(dict(keywords))
    except ValidationError as error:
        problems = _problems(model, keywords, error)
    else:
        if isinstance(context, model):
            return context
        made = type_name(type(context))
        problems = [(type_name(model), f"a validator returned {made}, let it return the context")]
    raise _misfit(event, model, problems)


def check_complete(event: str, context: BaseEventContext) -> None:
    """Refuse a context that was made without validation, if handlers cannot take it.

    Such contexts come from `model_construct`, or from an `__init__` that does not call that of its
    base class.

    Raises:
        ContextValidationError: a field has no value, or an extra field has a name that the call
            of a handler needs.
    """
    model = type(context)
    problems = [
        (name, "has no value, make the context with all fields, not by model_construct")
        for name in model.model_fields
        if name not in vars(context)
    ] + [
        (name, "this name is reserved for the call of a handler, rename the field")
        for name in _reserved(context)
    ]
    if problems:
        raise _misfit(event, model, problems)


def misfit_behind(
    event: str, context: object, error: BaseException
) -> ContextValidationError | None:
    """Return the error of `check_complete`, if an incomplete context made a handler fail.

    Args:
        event: the name of the event.
        context: the context that it was emitted with.
        error: the exception of the handler. If Python raised it because of the context, the
            emitter is at fault; any other exception is the handler's own.

    Returns:
        The error; None if the handler itself is at fault.
    """
    # First the usual one, because pydantic's `isinstance` takes long.
    if type(context) is dict or not isinstance(context, BaseEventContext):
        return None
    if isinstance(error, AttributeError):
        is_known = error.name in type(context).model_fields or str(error.name).startswith(
            "__pydantic"
        )
        is_of_context = error.obj is context and is_known
    elif isinstance(error, TypeError):  # an extra field was passed as the sender
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
        # Keys on the path may be values of the context. So only the last one is shown, and only
        # where it names a field.
        inside = printable(location[-1], limit=60) if len(location) > len(path) else ""
        if kind == "missing":
            fix = f"has no '{inside}' in it" if inside else f"missing, emit it with {field}=..."
        elif kind == "extra_forbidden" and inside:
            fix = f"has '{inside}' in it, which is not a field there, leave it out"
        elif kind == "extra_forbidden":
            fix = _fix_for_extra(model, str(location[0]), value)
        elif kind == "timezone_naive":
            fix = "has no time zone, give an aware one such as datetime.now(UTC)"
        elif inside and value is not value_at(keywords, path):
            fix = f"must be {wanted}, and a value in it is {given} ({kind})"
        elif declared is not None and _is_of(value, declared.annotation):
            fix = f"has the right type, and a value that is not allowed ({kind})"
        else:
            fix = f"must be {wanted}, got {given} ({kind})"
        problems.setdefault(field, fix)
    return list(problems.items())


def _is_of(value: object, annotation: object) -> bool:
    """Whether an annotation names the class of a value."""
    is_union = get_origin(annotation) in (Union, UnionType)
    allowed = get_args(annotation) if is_union else (annotation,)
    return any(type(value) is (get_origin(it) or it) for it in allowed)


def _field_at(
    model: type[BaseEventContext], location: tuple[int | str, ...]
) -> tuple[str, str, tuple[Any, ...]]:
    """Return the field at a location: its name, its keyword, and its path; `""` if it is none."""
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


def fix_for_context(model: type[BaseEventContext] | None, given: type[BaseEventContext]) -> str:
    """Return what to write for a context that was given as a keyword beside the event's name."""
    if model is None or issubclass(given, (model, GenericEventContext)):
        return f"write emit({type_name(given)}(...)), without the name"
    wanted, other = names_apart(model, given)
    return f"the event carries {wanted}, not {other}"


def _fix_for_extra(model: type[BaseEventContext], name: str, value: object) -> str:
    if isinstance(value, BaseEventContext):
        return f"a context, and emit takes plain values: {fix_for_context(model, type(value))}"
    for field in model.model_fields:
        spelled = spellings_of(model, field)
        if name in spelled:
            places = (path[0] for path in alias_paths(model, field))
            others = " and ".join(it for it in dict.fromkeys((*spelled, *places)) if it != name)
            return f"given twice, leave out either this or {others}"
        if name == field and spelled:
            return f"is given by its alias only, write {spelled[0]}=..."
    return "not a field, leave it out or add it to the model"
