"""What the annotations of a handler mean, names in quotes included, at any depth."""

from __future__ import annotations

import builtins
import typing
from collections import ChainMap
from collections.abc import Collection, Iterable, Sequence
from types import NoneType, UnionType
from typing import Any, ForwardRef, Union

from madcrow_events._interrupts import is_interrupt
from madcrow_events.emissions import Emission
from madcrow_events.models import BaseEventContext
from madcrow_events.subscriptions._kinds import function_behind, is_mock

__all__ = ["Annotations", "is_list", "is_model", "is_unknown"]

_DEPTH = 16  # of quotes in quotes; an alias may be called like what it stands for


class _Names(ChainMap[str, Any]):
    """Names of a module. One that is missing stands for itself, so the rest can be read."""

    def __missing__(self, name: str) -> Any:
        return ForwardRef(name)


class Annotations:
    """Reads the annotations of one handler.

    Args:
        handler: the handler.
        model: the model of its event's context, if it has one.
    """

    def __init__(self, handler: object, model: type[BaseEventContext] | None) -> None:
        self._handler = handler
        self._model = model
        self._names: ChainMap[str, Any] | None = None
        self._read: dict[str, Any] = {}

    def resolved(self, annotation: object) -> Any:
        """Return what an annotation in quotes says; as it is if that cannot be read."""
        for _ in range(_DEPTH):
            if isinstance(annotation, str):
                text, names = annotation, {}
            elif type(annotation) is ForwardRef:
                text, names = annotation.__forward_arg__, _names_in(annotation)
            else:
                break
            if text not in self._read:
                self._read[text] = self._evaluated(text, names)
            meant = self._read[text]
            if is_unknown(meant) and text == _text(meant):
                break
            annotation = meant
        return annotation

    def _evaluated(self, text: str, names: dict[str, Any]) -> Any:
        try:
            if self._names is None:
                self._names = self._known_names()
            return eval(text, {}, self._names.new_child(names))  # noqa: S307  # the author's own annotation, as typing.get_type_hints evaluates it
        except Exception as error:  # anything may be written there; then it is none of ours
            if is_interrupt(error):
                raise
            return text

    def _known_names(self) -> ChainMap[str, Any]:
        # Names mean what they mean where the handler was written. A model that is defined
        # inside a function is no global there, so the signal's own is offered besides.
        # Nor are names that are imported for type checkers only; ours are offered too.
        function = function_behind(self._handler)
        if is_mock(function):
            function = None  # for a mock's names are mocks
        own: dict[str, Any] = {
            "Any": Any,
            "Emission": Emission,
            "BaseEventContext": BaseEventContext,
            **{sequence.__name__: sequence for sequence in (Sequence, Collection, Iterable)},
        }
        if self._model is not None:
            own[self._model.__name__] = self._model
        parameters = {it.__name__: it for it in getattr(function, "__type_params__", ())}
        scope = getattr(function, "__globals__", {})
        return _Names(parameters, scope, own, builtins.__dict__)

    def members(self, annotation: object) -> tuple[Any, ...]:
        """Return what an annotation allows, without None: the members of a union, or itself."""
        annotation = self._unwrapped(annotation)
        origin = typing.get_origin(annotation)
        if origin is typing.Annotated:
            return self.members(typing.get_args(annotation)[0])
        if origin in (Union, UnionType):
            return tuple(m for part in typing.get_args(annotation) for m in self.members(part))
        if isinstance(annotation, typing.TypeVar):
            allowed = annotation.__constraints__ or (annotation.__bound__,)
            return tuple(m for part in allowed for m in self.members(part))
        return () if annotation in (None, NoneType) else (annotation,)

    def arguments(self, annotation: object) -> tuple[Any, ...]:
        """Return what stands in the brackets of an annotation: the members of each."""
        return tuple(m for part in typing.get_args(annotation) for m in self.members(part))

    def metadata(self, annotation: object) -> tuple[Any, ...]:
        """Return what else `Annotated` says of a parameter."""
        return getattr(self._unwrapped(annotation), "__metadata__", ())

    def _unwrapped(self, annotation: object) -> Any:
        """Return what an annotation stands for, through quotes, aliases and new types."""
        for _ in range(_DEPTH):
            annotation = self.resolved(annotation)
            alias = typing.get_origin(annotation) or annotation
            if isinstance(alias, typing.NewType):
                meant = alias.__supertype__
            elif type(alias).__name__ == "TypeAliasType":
                meant = _value_of(alias, typing.get_args(annotation))
            else:
                break
            annotation = meant
        return annotation


def _value_of(alias: Any, arguments: tuple[Any, ...]) -> Any:
    """Return what an alias stands for that was made by the `type` statement."""
    try:
        return alias.__value__[arguments] if arguments else alias.__value__
    except Exception as error:  # its names are looked up only now
        if is_interrupt(error):
            raise
        return ForwardRef(alias.__name__)


def _names_in(reference: ForwardRef) -> dict[str, Any]:
    """Return the names that Python 3.14 has made up for what it could read of an annotation."""
    return getattr(reference, "__extra_names__", None) or {}


def _text(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else annotation.__forward_arg__


def is_unknown(annotation: object) -> bool:
    """Whether an annotation is a name that nobody knows."""
    return isinstance(annotation, str | ForwardRef)


def is_list(annotation: object) -> bool:
    """Whether an annotation is `list[...]`, or `Sequence[...]` and the like."""
    origin = typing.get_origin(annotation)
    return isinstance(origin, type) and issubclass(list, origin)


def is_model(annotation: object) -> bool:
    """Whether an annotation is a context model."""
    return isinstance(annotation, type) and issubclass(annotation, BaseEventContext)
