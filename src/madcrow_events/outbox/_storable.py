"""Which models can be stored: those whose contexts could all come back equal from their JSON.

A look at the annotations finds what is wrong with each context of a model. What is wrong with some
contexts only, such as an instance of a subclass in a field, shows when they are read back. So does
what a serialiser of the author's own makes of a field, which is not looked into.
"""

from __future__ import annotations

import collections
import dataclasses
import types
import typing
from collections import abc
from collections.abc import Iterable, Iterator, Mapping
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

import pydantic
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typing_extensions import (
    ReadOnly,
    TypeAliasType,
    get_type_hints,
    is_typeddict,
)

from madcrow_events._text import printable, type_name
from madcrow_events.models import BaseEventContext, GenericEventContext, kept_with
from madcrow_events.outbox._errors import NotSerialisableError
from madcrow_events.outbox._interrupts import let_interrupts_through

__all__ = ["check_model"]

# From Python 3.11 and 3.12 on there may be second ones.
_ALIASES = (TypeAliasType, getattr(typing, "TypeAliasType", TypeAliasType))
_PARTS = (Union, types.UnionType, NotRequired, ReadOnly, Required)
"""What is written around types, and is none."""

_SERIALISERS = (pydantic.PlainSerializer, pydantic.WrapSerializer)
_SECRETS = (pydantic.SecretStr, pydantic.SecretBytes, pydantic.Secret)
_USED_UP = (abc.Iterable, abc.Iterator, abc.Generator)
_CONTAINERS = frozenset(
    {
        *(dict, frozenset, list, set, tuple),
        *(collections.Counter, collections.OrderedDict, collections.defaultdict, collections.deque),
        *(abc.Collection, abc.Mapping, abc.MutableMapping, abc.MutableSequence, abc.MutableSet),
        *(abc.Sequence, abc.Set),
    }
)
"""Types that hold anything if they are written without arguments."""

_ANYTHING = "takes anything: write which types it takes; pydantic.JsonValue takes what JSON can say"
_MASKED = "is written masked: add a serialiser that reveals it, or leave the secret out"
_EXCLUDED = "is not written: remove exclude, or leave the field out"
_CALLED = "takes a function or a class, which JSON cannot say: carry a name instead"
_READ_ONCE = "can be read only once: make it a list or a tuple"

_KEY = "outbox: why it cannot be stored"
_UNKNOWN: Any = object()

Misfit = tuple[tuple[str, ...], str]
"""The path of a field and what is wrong with it."""

Arguments = Mapping[Any, Any]
"""What the type variables of a generic class stand for."""


def check_model(event: str, model: type[BaseEventContext] | None) -> None:
    """Refuse a model whose contexts cannot come back equal from their JSON.

    Each payload is read back, too. This finds what is always wrong before anything is emitted.

    Args:
        event: the name of the event.
        model: the event's model. None, and `GenericEventContext`, pass: what they carry shows in
            each payload only.

    Raises:
        NotSerialisableError: a field cannot be stored. The message says what to do about it.
    """
    if model is None or model is GenericEventContext:
        return
    kept = kept_with(model)
    misfit = kept.get(_KEY, _UNKNOWN)
    if misfit is _UNKNOWN:
        model.model_rebuild(raise_errors=False)
        if not model.__pydantic_complete__:
            raise NotSerialisableError(
                f"the model {type_name(model)} of {event} is incomplete: define what its "
                "annotations name before the event is stored",
                event=event,
            )
        misfit = kept[_KEY] = next(_Look().at_model(model), None)
    if misfit is not None:
        path, problem = misfit
        field = printable(".".join(path))
        raise NotSerialisableError(
            f"the field {field} of {event} {problem}", event=event, field=field
        )


class _Look:
    """A look at a model and at each class inside of it, once."""

    def __init__(self) -> None:
        self._seen: set[Any] = set()

    def at_model(self, model: type[BaseModel]) -> Iterator[Misfit]:
        """Yield what is wrong with a model."""
        own = model.__pydantic_decorators__
        if self._is_seen(model, {}) or own.model_serializers:
            return
        serialised = _serialised(own)
        if model.model_config.get("json_encoders"):  # serialisers for all fields of a type
            serialised = frozenset({"*"})
        for name, field in model.model_fields.items():
            steps = () if issubclass(model, pydantic.RootModel) else (name,)
            if field.exclude:
                yield steps, _EXCLUDED
            elif serialised.isdisjoint({name, "*"}) and not _is_serialised(field.metadata):
                for path, problem in self._at_type(field.annotation, {}):
                    yield (*steps, *path), problem

    def _is_seen(self, thing: object, arguments: Arguments) -> bool:
        # By its id, because a type may have no hash. The annotations keep it alive.
        key = id(thing), repr(arguments)
        is_seen = key in self._seen
        self._seen.add(key)
        return is_seen

    def _at_type(self, annotation: Any, arguments: Arguments) -> Iterator[Misfit]:
        origin, parameters = get_origin(annotation), get_args(annotation)
        # The values of a bare `Json` come from JSON.
        if origin is Literal or annotation is pydantic.Json or annotation is pydantic.JsonValue:
            return
        if annotation is Any or annotation is object:
            yield (), _ANYTHING
        elif isinstance(annotation, TypeVar):
            yield from self._at_variable(annotation, arguments)
        elif origin is Annotated:
            yield from self._at_annotated(annotation, arguments)
        elif isinstance(origin or annotation, _ALIASES):
            yield from self._at_alias(origin or annotation, parameters, arguments)
        elif hasattr(annotation, "__supertype__"):  # made by `NewType`
            yield from self._at_type(annotation.__supertype__, arguments)
        elif origin in _PARTS:
            yield from self._at_each(parameters, arguments)
        else:
            yield from self._at_class(annotation, origin or annotation, parameters, arguments)

    def _at_each(self, annotations: Iterable[Any], arguments: Arguments) -> Iterator[Misfit]:
        for annotation in annotations:
            if annotation is not Ellipsis:
                yield from self._at_type(annotation, arguments)

    def _at_variable(self, variable: TypeVar, arguments: Arguments) -> Iterator[Misfit]:
        if variable in arguments:
            yield from self._at_type(arguments[variable], {})
            return
        limits = variable.__constraints__ or filter(None, (variable.__bound__,))
        yield from self._at_each(tuple(limits) or (Any,), arguments)

    def _at_annotated(self, annotation: Any, arguments: Arguments) -> Iterator[Misfit]:
        fields = [it for it in annotation.__metadata__ if isinstance(it, FieldInfo)]
        metadata = [*annotation.__metadata__, *(it for field in fields for it in field.metadata)]
        if not _is_serialised(metadata):
            yield from self._at_type(annotation.__origin__, arguments)

    def _at_alias(
        self, alias: Any, parameters: tuple[Any, ...], arguments: Arguments
    ) -> Iterator[Misfit]:
        given = _filled(alias.__type_params__, parameters, arguments)
        if not self._is_seen(alias, given):
            yield from self._at_type(alias.__value__, given)

    def _at_class(
        self, annotation: Any, class_: Any, parameters: tuple[Any, ...], arguments: Arguments
    ) -> Iterator[Misfit]:
        if class_ in (abc.Callable, type):
            yield (), _CALLED
        elif class_ in _USED_UP:
            yield (), _READ_ONCE
        elif class_ in _CONTAINERS and not parameters:
            if class_ is not tuple or annotation in (tuple, typing.Tuple):  # noqa: UP006  # as written
                yield (), _ANYTHING
        elif not isinstance(class_, type):  # such as the name of a class that is defined later
            return
        elif issubclass(class_, _SECRETS):
            yield (), _MASKED
        elif issubclass(class_, BaseModel):
            yield from self.at_model(class_)
        elif _has_hints(class_):
            given = _filled(getattr(class_, "__parameters__", ()), parameters, arguments)
            yield from self._at_hints(class_, given)
        else:
            yield from self._at_each(parameters, arguments)

    def _at_hints(self, class_: type, arguments: Arguments) -> Iterator[Misfit]:
        """Yield what is wrong with a dataclass, a TypedDict or a named tuple."""
        own = getattr(class_, "__pydantic_decorators__", None)
        if self._is_seen(class_, arguments) or (own is not None and own.model_serializers):
            return
        serialised = _serialised(own) if own is not None else frozenset()
        fields = _defaults_of(class_)
        for name, annotation in _hints_of(class_).items():
            said = (fields.get(name), *getattr(annotation, "__metadata__", ()))
            if any(isinstance(it, FieldInfo) and it.exclude for it in said):
                yield (name,), _EXCLUDED
            elif serialised.isdisjoint({name, "*"}):
                for path, problem in self._at_type(annotation, arguments):
                    yield (name, *path), problem


def _serialised(decorators: Any) -> frozenset[str]:
    """Return the names of the fields that have a serialiser of the author's."""
    return frozenset(it for of in decorators.field_serializers.values() for it in of.info.fields)


def _is_serialised(metadata: Iterable[Any]) -> bool:
    return any(isinstance(it, _SERIALISERS) for it in metadata)


def _filled(
    variables: tuple[Any, ...], parameters: tuple[Any, ...], arguments: Arguments
) -> Arguments:
    """Return what the variables of a generic stand for, within another one."""
    pairs = zip(variables, parameters, strict=False)  # a variable may have a default
    return {one: arguments.get(other, other) for one, other in pairs}


def _has_hints(class_: type) -> bool:
    is_named_tuple = issubclass(class_, tuple) and hasattr(class_, "_asdict")
    return dataclasses.is_dataclass(class_) or is_typeddict(class_) or is_named_tuple


def _defaults_of(class_: Any) -> dict[str, Any]:
    """Return what the fields of a dataclass say of themselves."""
    if not dataclasses.is_dataclass(class_):
        return {}
    fields = {field.name: field.default for field in dataclasses.fields(class_)}
    return {**fields, **getattr(class_, "__pydantic_fields__", {})}


def _hints_of(class_: type) -> dict[str, Any]:
    try:
        hints = get_type_hints(class_, include_extras=True)
    except Exception as error:  # a name in them is not defined where the class is
        let_interrupts_through(error)
        return {}
    if dataclasses.is_dataclass(class_):
        names = {field.name for field in dataclasses.fields(class_)}
        return {name: it for name, it in hints.items() if name in names}
    return hints
