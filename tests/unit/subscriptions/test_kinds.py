"""What kind a handler is, read from the callable itself (H9)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import sys
import weakref
from collections.abc import Callable
from typing import Any
from unittest.mock import AsyncMock, MagicMock, Mock, NonCallableMock, create_autospec

import pytest

from madcrow_events import BaseEventContext, EventDispatcher, HandlerSignatureError, SignalRegistry
from support.inside import handler_name
from support.proxies import (
    InThread,
    LocalProxy,
    ObjectProxy,
    Unreadable,
    dead_proxy,
    decorator,
)

RAN: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_has_run() -> None:
    RAN.clear()


def plain(sender: Any, **context: Any) -> None:
    RAN.append(sender)


async def coroutine(sender: Any, **context: Any) -> None:
    RAN.append(sender)


def generator(sender: Any, **context: Any) -> Any:
    RAN.append(sender)
    yield


def listing(function: Callable[..., Any]) -> Any:
    """Decorate a generator function so that a call runs it to its end."""

    @functools.wraps(function)
    def run(*arguments: Any, **keywords: Any) -> Any:
        return list(function(*arguments, **keywords))

    return run


def stepping(function: Callable[..., Any]) -> Any:
    """Decorate a coroutine function so that a call runs it to its end."""

    @functools.wraps(function)
    def run(*arguments: Any, **keywords: Any) -> None:
        with contextlib.suppress(StopIteration):
            function(*arguments, **keywords).send(None)

    return run


@decorator
def transparent(wrapped: Any, *arguments: Any, **keywords: Any) -> Any:
    return wrapped(*arguments, **keywords)


@decorator
def running_all(wrapped: Any, *arguments: Any, **keywords: Any) -> Any:
    return list(wrapped(*arguments, **keywords))


@decorator
async def in_thread(wrapped: Any, *arguments: Any, **keywords: Any) -> Any:
    return await asyncio.to_thread(wrapped, *arguments, **keywords)


@decorator
def running_to_its_end(wrapped: Any, *arguments: Any, **keywords: Any) -> Any:
    return stepping(wrapped)(*arguments, **keywords)


@contextlib.contextmanager
def around() -> Any:
    yield


def passing_on(sender: Any, **context: Any) -> Any:
    return coroutine(sender, **context)


passing_on._is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", None)  # type: ignore[attr-defined]


class Service:
    def base(self, kind: str, sender: Any, **context: Any) -> None:
        RAN.append(kind)

    async def awaited(self, sender: Any, kind: str, **context: Any) -> None:
        RAN.append(kind)

    partial = functools.partialmethod(base, "partial")
    partial_awaited = functools.partialmethod(awaited, kind="partial")

    @functools.singledispatchmethod
    def dispatched(self, sender: Any, **context: Any) -> None:
        RAN.append(self)

    @functools.singledispatchmethod
    async def dispatched_awaited(self, sender: Any, **context: Any) -> None:
        RAN.append(self)

    @functools.singledispatchmethod
    @classmethod
    def dispatched_by_class(cls, sender: Any, **context: Any) -> None:
        RAN.append(cls)

    @functools.singledispatchmethod
    @staticmethod
    def dispatched_static(sender: Any, **context: Any) -> None:
        RAN.append(sender)

    @functools.lru_cache  # noqa: B019  # the service lives as long
    def cached(self, sender: Any, **context: Any) -> None:
        RAN.append(self)

    @listing
    def listed(self, sender: Any, **context: Any) -> Any:
        RAN.append(self)
        yield

    @transparent
    def decorated(self, sender: Any, **context: Any) -> None:
        RAN.append(self)

    @transparent
    async def decorated_awaited(self, sender: Any, **context: Any) -> None:
        RAN.append(self)

    @transparent
    @classmethod
    def decorated_by_class(cls, sender: Any, **context: Any) -> None:
        RAN.append(cls)

    @transparent
    @staticmethod
    async def decorated_static(sender: Any, **context: Any) -> None:
        RAN.append(sender)

    @in_thread
    def threaded(self, sender: Any, **context: Any) -> None:
        RAN.append(self)

    @running_all
    def run(self, sender: Any, **context: Any) -> Any:
        RAN.append(self)
        yield


class AsyncCallable:
    async def __call__(self, sender: Any, **context: Any) -> None:
        RAN.append(self)


class StaticCallable:
    @staticmethod
    async def __call__(sender: Any, **context: Any) -> None:
        RAN.append(sender)


class CallableInCallable:
    __call__ = AsyncCallable()


class Decorator:
    """A decorator that is a class."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)

    async def __call__(self, *arguments: Any, **keywords: Any) -> None:
        RAN.append(self)


SERVICE = Service()

ASYNC_CALLABLE = AsyncCallable()

RUN = {
    "staticmethod": staticmethod(plain),
    "staticmethod of a coroutine": staticmethod(coroutine),
    "partial of one": functools.partial(functools.partial(staticmethod(coroutine))),
    "marked for asyncio": passing_on,
    "static, marked for asyncio": staticmethod(passing_on),
    "generator, run by its decorator": listing(generator),
    "generator, run by its partial": functools.update_wrapper(
        functools.partial(listing(generator)), generator
    ),
    "generator method, run by its decorator": SERVICE.listed,
    "coroutine, run by its decorator": stepping(coroutine),
    "singledispatch": functools.singledispatch(coroutine),
    "lru_cache": functools.lru_cache(coroutine),
    "with a block around": around()(plain),
    "coroutine with a block around": around()(coroutine),
    "partialmethod": SERVICE.partial,
    "partialmethod of a coroutine": SERVICE.partial_awaited,
    "singledispatchmethod": SERVICE.dispatched,
    "singledispatchmethod of a coroutine": SERVICE.dispatched_awaited,
    "singledispatchmethod, classmethod": Service.dispatched_by_class,
    "singledispatchmethod, static": Service.dispatched_static,
    "lru_cache of a method": SERVICE.cached,
    "wrapt": transparent(plain),
    "wrapt, method": SERVICE.decorated,
    "wrapt, coroutine": SERVICE.decorated_awaited,
    "wrapt, classmethod": Service.decorated_by_class,
    "wrapt, static": Service.decorated_static,
    "wrapt, static, in the class body": vars(Service)["decorated_static"],
    "wrapt, generator that is run": SERVICE.run,
    "wrapt, async around a plain function": in_thread(plain),
    "wrapt, async around a method": SERVICE.threaded,
    "wrapt, partial of an async one": functools.partial(transparent(in_thread(plain))),
    "wrapt, coroutine that is run": running_to_its_end(coroutine),
    "wrapt, coroutine in a thread, run": transparent(running_to_its_end(coroutine)),
    "proxy of a coroutine": ObjectProxy(coroutine),
    "weak proxy of a coroutine": weakref.proxy(coroutine),
    "weak proxy of an async callable": weakref.proxy(ASYNC_CALLABLE),
    "proxy of an async callable": ObjectProxy(AsyncCallable()),
    "static __call__": StaticCallable(),
    "__call__ that is an object": CallableInCallable(),
    "class as a decorator": Decorator(plain),
}

if sys.version_info >= (3, 12):
    RUN["marked for inspect"] = inspect.markcoroutinefunction(
        lambda sender, **context: coroutine(sender, **context)
    )


@pytest.mark.guarantee("H9")
@pytest.mark.parametrize("kind", RUN)
@pytest.mark.parametrize("way", ["subscribe", "connect"])
def test_a_handler_runs_whatever_it_is_wrapped_in(
    signal: Any, dispatcher: EventDispatcher, kind: str, way: str
) -> None:
    getattr(signal, way)(RUN[kind], weak=False)
    emission = asyncio.run(dispatcher.emit_async("thing_happened", number=1))
    emission.raise_for_failures()
    assert len(RAN) == 1
    assert not inspect.iscoroutine(emission.results[0].value)


@pytest.mark.guarantee("H9")
@pytest.mark.parametrize(
    "spec",
    [plain, coroutine, generator, SERVICE.cached, SERVICE.partial, Service, [].append],
)
@pytest.mark.parametrize("make", [Mock, MagicMock])
def test_a_mock_is_called_whatever_its_spec(
    signal: Any, dispatcher: EventDispatcher, make: Any, spec: Any
) -> None:
    mock = make(spec=spec)
    signal.subscribe(mock)
    assert "id=" not in repr(signal.subscriptions)
    emission = asyncio.run(dispatcher.emit_async("thing_happened", number=1))
    emission.raise_for_failures()
    mock.assert_called_once_with(signal, number=1)
    assert not inspect.iscoroutine(emission.results[0].value)


@pytest.mark.guarantee("H9")
@pytest.mark.parametrize(
    ("mock", "is_awaited"),
    [
        (AsyncMock(), True),
        (AsyncMock(spec=plain), True),
        (MagicMock(spec=coroutine), True),
        (create_autospec(coroutine), True),
        (create_autospec(plain), False),
        (MagicMock(spec=AsyncCallable()), False),
    ],
)
def test_a_mock_is_awaited_if_it_gives_a_coroutine(
    signal: Any, dispatcher: EventDispatcher, mock: Any, is_awaited: bool
) -> None:
    signal.subscribe(mock)
    asyncio.run(dispatcher.emit_async("thing_happened", number=1)).raise_for_failures()
    mock.assert_called_once_with(signal, number=1)
    if is_awaited:
        mock.assert_awaited_once()


@pytest.mark.guarantee("H9")
@pytest.mark.parametrize(
    ("handler", "fix"),
    [
        (classmethod(plain), "is a classmethod without its class: subscribe Class.method after"),
        (vars(Service)["decorated_by_class"], "subscribe Class.method after the class"),
        (
            vars(Service)["partial"],
            "is a partialmethod without its object: .* as in service.method",
        ),
        (Service.dispatched, "takes 'self' first"),
        (Service.partial, "takes 'self' first"),
        (Service.decorated, "takes 'self' first"),
        (staticmethod(generator), "return, not yield"),
        (contextlib.contextmanager(generator), "return, not yield"),
        (functools.singledispatch(generator), "return, not yield"),
        (functools.lru_cache(generator), "return, not yield"),
        (NonCallableMock(spec=plain), "is of type NonCallableMock and cannot be called"),
    ],
)
def test_what_would_do_nothing_is_refused_with_what_to_write(
    signal: Any, handler: Any, fix: str
) -> None:
    with pytest.raises(HandlerSignatureError, match=fix):
        signal.subscribe(handler)
    assert not signal.subscriptions


@pytest.mark.guarantee("H9")
def test_the_parameters_are_those_of_what_is_wrapped(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    class Order(BaseEventContext):
        number: int

    class Keeper:
        @functools.singledispatchmethod
        def by_model(self, context: Order) -> int:
            return context.number

        @transparent
        def by_name(self, number: int) -> int:
            return number

        @InThread
        def in_thread(self, context: Order) -> int:
            return context.number

        @transparent
        @InThread
        def in_thread_below(self, context: Order) -> int:
            return context.number

    keeper = Keeper()
    signals.signal("order", context=Order)
    current = LocalProxy(lambda: keeper.by_model)
    for handler in (keeper.by_model, keeper.by_name, keeper.in_thread, current):
        signals.subscribe("order", handler)
    signals.subscribe("order", keeper.in_thread_below)
    emission = asyncio.run(dispatcher.emit_async("order", number=3))
    emission.raise_for_failures()
    assert [result.value for result in emission.results] == [3] * 5
    with pytest.raises(HandlerSignatureError, match="takes 'self' first"):
        signals.subscribe("order", Keeper.in_thread)


@pytest.mark.guarantee("H9")
@pytest.mark.parametrize("name", ["plain", "awaited", "of_class", "static"])
def test_the_method_of_an_autospecced_object_is_called_as_the_method_is(
    signals: SignalRegistry, dispatcher: EventDispatcher, name: str
) -> None:
    class Order(BaseEventContext):
        number: int

    class Keeper:
        def plain(self, context: Order) -> None: ...

        async def awaited(self, context: Order) -> None: ...

        @classmethod
        def of_class(cls, context: Order) -> None: ...

        @staticmethod
        def static(context: Order) -> None: ...

    mock = getattr(create_autospec(Keeper()), name)
    signals.signal("order", context=Order).subscribe(mock)
    emission = asyncio.run(dispatcher.emit_async("order", number=3))
    emission.raise_for_failures()
    (given,) = mock.call_args.args
    assert given == Order(number=3, timestamp=given.timestamp)


@pytest.mark.guarantee("H9")
def test_a_receiver_of_which_nothing_can_be_asked_is_connected(signal: Any) -> None:
    receiver = Unreadable()
    signal.connect(receiver)
    assert [it.handler for it in signal.subscriptions if it.handler is receiver]
    with pytest.raises(HandlerSignatureError, match="no readable signature"):
        signal.subscribe(receiver)


@pytest.mark.guarantee("H9")
def test_a_dead_proxy_has_a_name_and_is_no_handler(signal: Any) -> None:
    dead = dead_proxy()
    assert handler_name(dead) == "weakref.ProxyType"
    with pytest.raises(HandlerSignatureError, match="cannot be called"):
        signal.subscribe(dead)
