"""Reading JSON that has more keys than a model knows, as a newer emitter writes it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json

__all__ = ["read_tolerantly"]

ModelT = TypeVar("ModelT", bound=BaseModel)
Path = tuple[Any, ...]

_ROUNDS = 20
"""How often keys are dropped; those inside of a union may show only after others are gone."""

# pydantic calls a key that is too much so: in models, and in dataclasses.
_TOO_MUCH = frozenset({"extra_forbidden", "unexpected_keyword_argument"})


def read_tolerantly(model: type[ModelT], text: str) -> ModelT:
    """Make an instance of JSON, without the keys that are unknown anywhere inside of it.

    Args:
        model: the model.
        text: the JSON.

    Raises:
        pydantic.ValidationError: something else is wrong, too. It may show values.
    """
    for _ in range(_ROUNDS):
        read = _attempt(model, text)
        if not isinstance(read, ValidationError):
            return read
        smaller = _without_unknown(text, read)
        if smaller is None:
            raise read
        text = smaller
    return _read(model, text)


def _read(model: type[ModelT], text: str) -> ModelT:
    # Not `model_validate_json`, which a model may override.
    read: ModelT = model.__pydantic_validator__.validate_json(text)
    return read


def _attempt(model: type[ModelT], text: str) -> ModelT | ValidationError:
    try:
        return _read(model, text)
    except ValidationError as error:
        return error


def _without_unknown(text: str, error: ValidationError) -> str | None:
    """Return JSON without the keys that an error names, or None if more is wrong."""
    problems = [
        (problem["loc"], problem["type"] in _TOO_MUCH)
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    if not any(is_unknown for _, is_unknown in problems):
        return None
    document = from_json(text)
    paths = _unknown(problems, document)
    if not paths:
        return None
    for *steps, key in paths:
        holder = document
        for step in steps:
            holder = holder[step]
        del holder[key]
    return to_json(document).decode()


def _unknown(problems: Iterable[tuple[Path, bool]], value: Any) -> list[Path] | None:
    """Return the paths of all unknown keys in a value, or None if anything else is wrong with it.

    pydantic puts the name of a union's member into the place of an error. It says of each member
    why that one does not fit; what counts is the member that needs the fewest keys dropped.
    """
    inside: dict[Any, list[tuple[Path, bool]]] = defaultdict(list)
    members: dict[Any, list[tuple[Path, bool]]] = defaultdict(list)
    for path, is_unknown in problems:
        if not path:
            return None
        (inside if _has(value, path[0]) else members)[path[0]].append((path[1:], is_unknown))
    found: list[Path] = []
    for step, within in inside.items():
        if within == [((), True)]:
            found.append((step,))
            continue
        deeper = _unknown(within, value[step])
        if deeper is None:
            return None
        found += [(step, *path) for path in deeper]
    if members:
        answers = (_unknown(within, value) for within in members.values())
        fitting: list[list[Path]] = [paths for paths in answers if paths is not None]
        if not fitting:
            return None
        shortest: list[Path] = min(fitting, key=len)
        found += shortest
    return found


def _has(value: Any, step: Any) -> bool:
    if isinstance(value, dict):
        return step in value
    return isinstance(value, list) and isinstance(step, int) and step < len(value)
