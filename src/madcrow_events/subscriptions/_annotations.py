"""Reading the annotations of a handler, with names in quotes at any depth."""

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

_DEPTH = 16  # of quotes in quotes: an alias that stands for its own name would never end


class _Names(ChainMap[str, Any]):
    """The names of a module. A missing name stands for itself, so that the rest can be read."""

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
        """Return the meaning of an annotation in quotes; the annotation if it is unreadable."""
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
        except Exception as error:  # anything may be written there, and is not ours to judge
            if is_interrupt(error):
                raise
            return text

    def _known_names(self) -> ChainMap[str, Any]:
        # Names have the meaning that they have in the handler's module. Two kinds are no globals
        # there, and are added: the signal's model, which may be defined inside a function, and
        # names of this package, which may be imported for type checkers only.
        function = function_behind(self._handler)
        if is_mock(function):
            function = None  # the names of a mock are mocks
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
        """Return the members of a union without None, or else the annotation, as a tuple."""
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
        """Return the members of each argument in the brackets of an annotation."""
        return tuple(m for part in typing.get_args(annotation) for m in self.members(part))

    def metadata(self, annotation: object) -> tuple[Any, ...]:
        """Return the metadata of an `Annotated` annotation."""
        return getattr(self._unwrapped(annotation), "__metadata__", ())

    def _unwrapped(self, annotation: object) -> Any:
        """Return the meaning of an annotation behind quotes, aliases and new types."""
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
    """Return the value of an alias that the `type` statement has made."""
    try:
        return alias.__value__[arguments] if arguments else alias.__value__
    except Exception as error:  # its names are looked up only now
        if is_interrupt(error):
            raise
        return ForwardRef(alias.__name__)


def _names_in(reference: ForwardRef) -> dict[str, Any]:
    """Return the names that Python 3.14 has made up for the readable parts of an annotation."""
    return getattr(reference, "__extra_names__", None) or {}


def _text(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else annotation.__forward_arg__


def is_unknown(annotation: object) -> bool:
    """Whether an annotation is a name that could not be found."""
    return isinstance(annotation, str | ForwardRef)


def is_list(annotation: object) -> bool:
    """Whether an annotation is `list[...]`, `Sequence[...]` or another supertype of lists."""
    origin = typing.get_origin(annotation)
    return isinstance(origin, type) and issubclass(list, origin)


def is_model(annotation: object) -> bool:
    """Whether an annotation is a context model."""
    return isinstance(annotation, type) and issubclass(annotation, BaseEventContext)
