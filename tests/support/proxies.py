"""Objects that pass for others: functions as decorators of wrapt and asgiref make them; proxies."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

from support.subscribers import Sender


class ObjectProxy:
    """Claims to be what it wraps."""

    __slots__ = ("__weakref__", "_self_target")

    def __init__(self, target: Any) -> None:
        self._self_target = target

    @property
    def __class__(self) -> Any:
        return self._self_target.__class__

    @property
    def __wrapped__(self) -> Any:
        return self._self_target

    def __getattr__(self, name: str) -> Any:
        return getattr(self._self_target, name)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._self_target(*arguments, **keywords)


class FunctionWrapper(ObjectProxy):
    """A function under a decorator; each access through an object makes a wrapper anew."""

    __slots__ = ("_self_wrapper",)

    def __init__(self, target: Any, wrapper: Callable[..., Any]) -> None:
        super().__init__(target)
        self._self_wrapper = wrapper

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._self_wrapper(self._self_target, *arguments, **keywords)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        bound = BoundFunctionWrapper(self._self_target.__get__(instance, owner), self._self_wrapper)
        bound._self_parent = self
        bound._self_instance = instance
        bound._self_binding = self._self_target.__class__.__name__
        return bound


class BoundFunctionWrapper(FunctionWrapper):
    """What such an access gives."""

    __slots__ = ("_self_binding", "_self_instance", "_self_parent")


def decorator(wrapper: Callable[..., Any]) -> Callable[[Any], Any]:
    """Return a decorator, as `wrapt.decorator` does, whose wrapper gets `(wrapped, ...)`."""
    return lambda function: FunctionWrapper(function, wrapper)


class InThread:
    """A decorator that is a class, and passes the object of a method to itself, as asgiref's."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        functools.update_wrapper(self, function)

    async def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.function(*arguments, **keywords)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        bound = functools.partial(self.__call__, instance)
        return functools.update_wrapper(bound, self.function)


class Passing(InThread):
    """The same in fewer words."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return functools.partial(self, instance)


class LocalProxy:
    """Stands for what a function returns at the time, as werkzeug's does."""

    __slots__ = ("_get_current_object",)

    def __init__(self, look_up: Callable[[], Any]) -> None:
        self._get_current_object = look_up

    @property
    def __class__(self) -> Any:
        return self._get_current_object().__class__

    @property
    def __call__(self) -> Any:
        return lambda *arguments, **keywords: self._get_current_object()(*arguments, **keywords)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get_current_object(), name)


def dead_proxy() -> Any:
    """Return a weak proxy whose object is gone, so that any attribute raises."""
    return weakref.proxy(Sender())


class Unreadable:
    """Whatever is asked of it raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    def __hash__(self) -> int:
        raise RuntimeError

    def __repr__(self) -> str:
        raise RuntimeError

    def __call__(self) -> None:
        raise RuntimeError
