"""Writing a context as a program that emits it."""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import BaseModel, SecretBytes, SecretStr

from madcrow_events.signals._registry import declared_in

if TYPE_CHECKING:
    from madcrow_events.models import BaseEventContext
    from madcrow_events.signals import EventSignal, SignalRegistry

__all__ = ["program_for"]

_STANDARD = {"import datetime", "from decimal import Decimal", "from uuid import UUID"}

_LINE = 76  # columns, so that the program fits a terminal of 80


def program_for(
    signals: SignalRegistry, signal: EventSignal[Any], context: BaseEventContext | None
) -> str:
    """Return a program that emits an event.

    Args:
        signals: the registry.
        signal: the event.
        context: an example of its context; None to write `...` for each required value.
    """
    imports = {"from madcrow_events import emit_event"}
    model = signal.context_model
    is_the_event = [it for it in declared_in(signals) if it.context_model is model] == [signal]
    if model is not None and is_the_event:
        written = _call(model, _arguments(model, context, imports), imports)
        arguments = [written]
    else:
        fields = [] if model is None else _arguments(model, context, imports)
        arguments = [f'"{signal.name}"', *fields]
    standard = sorted(imports & _STANDARD, key=lambda it: (it.startswith("from"), it))
    blocks = ("\n".join(standard), "\n".join(sorted(imports - _STANDARD)))
    return "\n\n".join([*filter(None, blocks), _joined("emit_event", arguments)])


def _arguments(model: type[BaseModel], context: BaseModel | None, imports: set[str]) -> list[str]:
    """Return the arguments for a model: what an example gives, or dots for what is required."""
    if context is None:
        return [f"{name}=..." for name, it in model.model_fields.items() if it.is_required()]
    given = [it for it in model.model_fields if it in context.model_fields_set]
    return [f"{name}={_value(getattr(context, name), imports)}" for name in given]


def _call(model: type[BaseModel], arguments: list[str], imports: set[str]) -> str:
    return _joined(_imported(model, imports), arguments)


def _joined(function: str, arguments: list[str]) -> str:
    """Return a call in one line, or with each argument in a line of its own."""
    line = f"{function}({', '.join(arguments)})"
    if len(line) <= _LINE and "\n" not in line:
        return line
    inner = "".join(f"\n    {it.replace(chr(10), chr(10) + '    ')}," for it in arguments)
    return f"{function}({inner}\n)"


def _imported(class_: type, imports: set[str]) -> str:
    """Return the name of a class, and note how it is imported."""
    path = class_.__qualname__
    if "<locals>" not in path and class_.__module__ != "__main__":
        imports.add(f"from {class_.__module__} import {re.split(r'[.[]', path)[0]}")
    return path.rpartition("<locals>.")[2]


def _value(value: Any, imports: set[str]) -> str:  # noqa: PLR0911  # one for each kind of value
    """Return a value as code. What has no code of its own is written as a text."""
    match value:
        case Enum():
            return f"{_imported(type(value), imports)}.{value.name}"
        case BaseModel():
            return _call(type(value), _arguments(type(value), value, imports), imports)
        case list():
            return f"[{', '.join(_value(it, imports) for it in value)}]"
        case tuple():
            return f"({''.join(f'{_value(it, imports)}, ' for it in value).rstrip()})"
        case dict():
            pairs = (f"{_value(key, imports)}: {_value(it, imports)}" for key, it in value.items())
            return f"{{{', '.join(pairs)}}}"
        case bool() | int() | float() | str() | bytes() | None:
            return repr(value)
        case UUID() | Decimal():
            imports.add(f"from {type(value).__module__} import {type(value).__name__}")
            return repr(value)
        case dt.date() | dt.time() | dt.timedelta():
            imports.add("import datetime")
            return _moment(value)
        case SecretBytes() | SecretStr():
            return repr(value.get_secret_value())
        case _:
            return repr(str(value))


def _moment(value: dt.date | dt.time | dt.timedelta) -> str:
    """Return a moment as code; a time zone that has an offset alone is UTC in an example."""
    if isinstance(value, dt.datetime | dt.time) and value.tzinfo is not None:
        return repr(value.replace(tzinfo=dt.UTC)).replace("datetime.timezone.utc", "datetime.UTC")
    return repr(value)
