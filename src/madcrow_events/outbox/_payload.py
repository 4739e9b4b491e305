"""What is stored of a context: its model's JSON, and the way back.

The context of an event without a model is a `GenericEventContext`. Its entries are stored beside
the fields that every context has, as those of a model would be. So the event can get a model later.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from madcrow_events._aliases import alias_paths
from madcrow_events._text import names_apart, printable, type_name
from madcrow_events.models import (
    BaseEventContext,
    GenericEventContext,
    kept_with,
    meaning_of,
)
from madcrow_events.outbox._comparing import (
    Difference,
    difference,
    difference_by_name,
    is_surely_same,
)
from madcrow_events.outbox._errors import NotSerialisableError, UnreadablePayloadError
from madcrow_events.outbox._interrupts import let_interrupts_through
from madcrow_events.outbox._tolerance import read_tolerantly

__all__ = ["dump", "load"]

_FIX = (
    "annotate it with the class that it holds, or give it a serialiser and a validator that undo "
    "each other"
)
_COMMON = frozenset(BaseEventContext.model_fields)
_GENERIC = frozenset(GenericEventContext.model_fields)
_BY_ALIAS = "outbox: written by alias"
_MOST_PROBLEMS = 20


def dump(event: str, model: type[BaseEventContext] | None, context: BaseEventContext) -> str:
    """Return the JSON that is stored of a context, after it was read back and compared.

    Args:
        event: the name of the event.
        model: the event's model, or None if it has none.
        context: the context.

    Raises:
        NotSerialisableError: the context cannot be written, or does not come back equal, class for
            class.
    """
    kind = type(context)
    model = model or GenericEventContext
    if kind is not model and meaning_of(kind) != meaning_of(model):
        raise _of_another_class(event, model, kind)
    if type(context) is GenericEventContext:
        return _dump_generic(event, context)
    by_alias = kept_with(kind).get(_BY_ALIAS, False)
    try:
        return _dump_as(event, context, by_alias)
    except NotSerialisableError:
        other = _dump_or_none(event, context, not by_alias)
        if other is None:
            raise
    kept_with(kind)[_BY_ALIAS] = not by_alias
    return other


def load(event: str, model: type[BaseEventContext] | None, payload: str) -> BaseEventContext:
    """Return the context that was stored; keys that its model does not know are dropped.

    Args:
        event: the name of the event.
        model: the event's model, or None if it has none.
        payload: what `dump` has returned, here or in a newer or older program.

    Raises:
        UnreadablePayloadError: the payload does not fit the model. The error shows no value.
    """
    model = model or GenericEventContext
    try:
        if model is GenericEventContext:
            return _load_generic(event, payload)
        context: object = read_tolerantly(model, payload)
    except ValidationError as error:
        problems = _problems(model, error)
    except Exception as error:  # a validator may raise anything
        let_interrupts_through(error)
        problems = ((type_name(model), type_name(type(error))),)
    else:
        if isinstance(context, model):
            return context
        problems = ((type_name(model), f"comes back as {type_name(type(context))}"),)
    listed = "; ".join(f"{name}: {problem}" for name, problem in problems)
    raise UnreadablePayloadError(
        f"what is stored of {event} does not fit its model ({listed}): give new fields a default, "
        "or raise the model's event_version and declare an upcast",
        event=event,
        problems=problems,
    )


def _dump_or_none(event: str, context: BaseEventContext, by_alias: bool) -> str | None:
    try:
        return _dump_as(event, context, by_alias)
    except NotSerialisableError:
        return None


def _dump_as(event: str, context: BaseEventContext, by_alias: bool) -> str:
    kind = type(context)
    try:
        # Not `model_dump_json`, which a model may override.
        written = kind.__pydantic_serializer__.to_json(
            context, round_trip=True, by_alias=by_alias, warnings=False
        )
    except Exception as error:  # a serialiser may raise anything
        let_interrupts_through(error)
        field = _field_not_written(context)
        raise _refusal(event, field, "cannot be written as JSON") from None
    try:
        read = kind.__pydantic_validator__.validate_json(written)
    except ValidationError as error:
        field, problem = _problems(kind, error)[0]
        field = field if field in kind.model_fields else None
        raise _refusal(event, field, f"cannot be read back ({problem})") from None
    except Exception as error:  # a validator may raise anything
        let_interrupts_through(error)
        problem = type_name(type(error))
        raise _refusal(event, None, f"cannot be read back ({problem})") from None
    if type(read) is not kind or not is_surely_same(context, read):
        _refuse_difference(event, context, read)
    return str(written, "utf-8")


def _dump_generic(event: str, context: GenericEventContext) -> str:
    shadowed = sorted(_GENERIC.intersection(context.data))
    if shadowed:
        raise NotSerialisableError(
            f"the entry {shadowed[0]} of {event} has the name of a field that every context has: "
            "rename the entry",
            event=event,
            field=shadowed[0],
        )
    values = {name: value for name, value in vars(context).items() if name in _COMMON}
    try:
        written = to_json({**values, **context.data}).decode()
        read = _load_generic(context.event_type, written)
    except Exception as error:  # a serialiser may raise anything
        let_interrupts_through(error)
        raise _refusal(event, _entry_not_written(context), "cannot be written as JSON") from None
    # Of an entry its name is given, not that of `data`, for emitters give it as a keyword.
    _refuse_difference(event, context.data, read.data, difference_by_name)
    _refuse_difference(event, context, read)
    return written


def _load_generic(event: str, payload: str) -> GenericEventContext:
    document = from_json(payload)
    if not isinstance(document, dict):
        raise TypeError("the payload is no JSON object")
    fields = {name: value for name, value in document.items() if name in _COMMON}
    entries = {name: value for name, value in document.items() if name not in _COMMON}
    return GenericEventContext.model_validate({**fields, "event_type": event, "data": entries})


def _of_another_class(
    event: str, model: type[BaseEventContext], kind: type[BaseEventContext]
) -> NotSerialisableError:
    if model is GenericEventContext:
        return NotSerialisableError(
            f"{event} has no model, so a stored {type_name(kind)} would lose its class: declare "
            f"the event with context={type_name(kind)}, or emit it with keywords",
            event=event,
        )
    wanted, other = names_apart(model, kind)
    return NotSerialisableError(
        f"{event} is stored as {wanted}, so this {other} would lose its class: emit {wanted}",
        event=event,
    )


def _refusal(event: str, field: str | None, problem: str) -> NotSerialisableError:
    subject = f"the field {field} of {event}" if field else f"the context of {event}"
    return NotSerialisableError(f"{subject} {problem}: {_FIX}", event=event, field=field)


def _refuse_difference(
    event: str,
    written: Any,
    read: Any,
    compare: Callable[[Any, Any], Difference | None] = difference,
) -> None:
    found: Difference | None
    try:
        found = compare(written, read)
    except RecursionError:
        found = (), "is nested too deep"
    if found is not None:
        path, problem = found
        raise _refusal(event, printable(".".join(path)) or None, problem)


def _field_not_written(context: BaseEventContext) -> str | None:
    """Return the first field that cannot be written by itself."""
    write = type(context).__pydantic_serializer__.to_json
    ways = {
        name: partial(write, context, include={name}, round_trip=True, warnings=False)
        for name in type(context).model_fields
    }
    failed = [name for name, way in ways.items() if _fails(way)]
    # If all fail, a serialiser of the whole model does.
    return failed[0] if failed and len(failed) < len(ways) else None


def _entry_not_written(context: GenericEventContext) -> str | None:
    """Return the first entry of `data` that cannot be written by itself."""
    entries = context.data.items()
    failed = (printable(name) for name, value in entries if _fails(partial(to_json, value)))
    return next(failed, None)


def _fails(write: Callable[[], bytes]) -> bool:
    try:
        write()
    except Exception as error:  # a serialiser may raise anything
        let_interrupts_through(error)
        return True
    return False


def _problems(model: type[BaseEventContext], error: ValidationError) -> tuple[tuple[str, str], ...]:
    """Return where and how JSON does not fit a model, without the keys of dictionaries."""
    paths = [path for name in model.model_fields for path in alias_paths(model, name)]
    known = {*model.model_fields, *(path[0] for path in paths)}
    found: dict[tuple[str, str], None] = {}
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        place = problem["loc"][0] if problem["loc"] else None
        name = str(place) if place in known else type_name(model)
        found[name, printable(problem["type"])] = None
    return tuple(found)[:_MOST_PROBLEMS]
