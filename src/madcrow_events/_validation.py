"""Making a context of keywords, with errors that name fields and types and show no value (G1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from madcrow_events._text import listed, printable, type_name
from madcrow_events.exceptions import ContextValidationError
from madcrow_events.models import BaseEventContext, GenericEventContext

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["validate_keywords"]


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
        return model.model_validate(keywords)
    except ValidationError as error:
        problems = tuple(_problems(model, error))
    shown = listed([f"{field}: {problem}" for field, problem in problems], separator="; ")
    message = f"{event} does not fit {type_name(model)}: {shown}"
    raise ContextValidationError(message, event=event, problems=problems)


def _problems(model: type[BaseEventContext], error: ValidationError) -> list[tuple[str, str]]:
    problems: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        location = detail["loc"]
        field = printable(location[0], limit=60) if location else type_name(model)
        kind = detail["type"]
        if kind == "missing":
            fix = f"missing, emit it with {field}=..."
        elif kind == "extra_forbidden":
            fix = "not a field, leave it out or add it to the model"
        elif kind == "timezone_naive":
            fix = "has no time zone, give an aware one such as datetime.now(UTC)"
        else:
            declared = model.model_fields.get(field)
            wanted = type_name(declared.annotation) if declared is not None else "valid"
            fix = f"must be {wanted}, got {type_name(type(detail['input']))} ({printable(kind)})"
        problems.setdefault(field, fix)
    return list(problems.items())
