"""Reading the context of an event from the command line."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from madcrow_events._text import close_matches, printable, type_name
from madcrow_events.cli._errors import CommandError
from madcrow_events.cli._theirs import theirs
from madcrow_events.models import RESERVED_FIELDS, BaseEventContext

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic_core import ErrorDetails

    from madcrow_events.signals import EventSignal

__all__ = ["Payload", "payload_of", "read_pairs"]


class Payload(NamedTuple):
    """What an event is emitted or explained with.

    Attributes:
        context: an instance of the event's model; None if the event has none, or if fields are
            missing.
        fields: the fields, where there is no context.
    """

    context: BaseEventContext | None
    fields: dict[str, Any]


def read_pairs(pairs: Iterable[str], file: str | None = None) -> dict[str, Any]:
    """Return the fields that the command line gives, each as a text, or as JSON has it.

    Args:
        pairs: texts such as `order_id=7`.
        file: the path of a file with a JSON object, `-` for the standard input, or None.

    Raises:
        CommandError: a pair is malformed, a field is given twice, or the file has no JSON object.
    """
    fields: dict[str, Any] = {} if file is None else _read_file(file)
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise CommandError(f"'{printable(pair)}' gives no field: write it as in order_id=7")
        if name in fields:
            raise CommandError(f"the field {printable(name)} is given twice")
        fields[name] = _Text(value)
    for name in RESERVED_FIELDS & {*fields}:
        raise CommandError(f"no field is called {name}: its name has another meaning in Python")
    return fields


class _Text(str):
    """A text of the command line, which may be meant as JSON."""

    __slots__ = ()


def _read_file(path: str) -> dict[str, Any]:
    where = "the standard input" if path == "-" else printable(path)
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        found = json.loads(text, object_pairs_hook=_without_doubles)
    except OSError as error:
        raise CommandError(
            f"--json: {where} cannot be read ({error.strerror}): give the name of a file, or - for "
            "the standard input; to have the result as JSON, put --json at the end"
        ) from error
    except UnicodeDecodeError as error:
        raise CommandError(f"--json: {where} is not in UTF-8") from error
    except RecursionError as error:
        raise CommandError(f"--json: {where} is nested too deeply") from error
    except ValueError as error:
        raise CommandError(f"--json: {where} is no JSON: {printable(error)}") from error
    if not isinstance(found, dict):
        raise CommandError(f"--json: {where} has no object: write the fields as {{...}}")
    return found


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {printable(name)} is given twice")
        found[name] = value
    return found


def payload_of(
    signal: EventSignal[Any], fields: dict[str, Any], *, may_lack: bool = False
) -> Payload:
    """Return the context of an event, made of fields of the command line.

    A text counts as a value of its field's type, as `7` does for an integer. If it is none, it may
    be JSON, such as `[1, 2]`. For an event without a model, it is taken as JSON if it is JSON.

    Args:
        signal: the event.
        fields: what `read_pairs` returns.
        may_lack: whether required fields may be missing. Then the payload has the fields.

    Raises:
        CommandError: the fields do not fit the event's model.
    """
    model = signal.context_model
    if model is None:
        return Payload(None, {name: _as_json(value) for name, value in fields.items()})
    context, errors = _validated(model, fields)
    if context is not None:
        return Payload(context, {})
    if may_lack:
        errors = [it for it in errors if it["type"] != "missing" or len(it["loc"]) > 1]
    if errors:
        problems = "".join(f"\n  {_place(it)}: {_problem(it, model)}" for it in errors)
        raise CommandError(f"{signal.name} takes no such context:{problems}")
    return Payload(None, {name: _value_of(model, name, value) for name, value in fields.items()})


def _validated(
    model: type[BaseEventContext], fields: dict[str, Any]
) -> tuple[BaseEventContext | None, list[ErrorDetails]]:
    """Return a context, or None and what is wrong."""
    try:
        context, errors = _tried(model, fields)
    except Exception:  # a validator of the application takes no text, but maybe the value
        again = {name: _as_json(value) for name, value in fields.items()}
        context, errors = theirs(f"reading {type_name(model)}", partial(_tried, model, again))
        if context is None:  # a number may be meant as a text
            wrong = {it["loc"][0] for it in errors if it["loc"]}
            again |= {name: value for name, value in fields.items() if name in wrong}
            return theirs(f"reading {type_name(model)}", partial(_tried, model, again))
    if context is not None:
        return context, errors
    wrong = {it["loc"][0] for it in errors if it["loc"] and it["type"] != "missing"}
    wrong |= {name for name, it in model.model_fields.items() if it.alias in wrong}
    again = {name: _as_json(it) if name in wrong else it for name, it in fields.items()}
    context, left = theirs(f"reading {type_name(model)}", partial(_tried, model, again))
    # Of a number that was meant as a text, the first error is the one to read.
    structured = {(name,) for name, it in again.items() if isinstance(it, list | dict)}
    first = {it["loc"]: it for it in errors if it["loc"][:1] not in structured}
    return context, [first.get(it["loc"], it) for it in left]


def _value_of(model: type[BaseEventContext], name: str, value: Any) -> Any:
    """Return the value of one field as its model would read it."""
    fields = model.model_fields
    named = {str(it.alias): it for it in fields.values()} | fields
    annotation: Any = named[name].annotation if name in named else Any
    for it in (value, _as_json(value)):
        with suppress(Exception):  # also what a validator of the application raises
            return TypeAdapter(annotation).validate_json(json.dumps(it))
    return _as_json(value)


def _tried(
    model: type[BaseEventContext], fields: dict[str, Any]
) -> tuple[BaseEventContext | None, list[ErrorDetails]]:
    try:
        return model.model_validate_json(json.dumps(fields)), []
    except ValidationError as error:
        return None, error.errors(include_url=False, include_input=False, include_context=False)


def _as_json(value: Any) -> Any:
    if not isinstance(value, _Text):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return str(value)


def _problem(error: ErrorDetails, model: type[BaseEventContext]) -> str:
    """Return what is wrong, and for a field that the model lacks, the one that may be meant."""
    field, *inner = error["loc"] or ("",)
    if error["type"] != "extra_forbidden" or inner:
        return error["msg"]
    near = close_matches(str(field), model.model_fields, 1)
    return f"the model has no such field{f': did you mean {near[0]}?' if near else ''}"


def _place(error: ErrorDetails) -> str:
    return ".".join(map(str, error["loc"])) or "the fields together"
