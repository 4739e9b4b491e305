"""What a failure keeps alive: nothing, once nobody holds the emission (F1, L1)."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import traceback
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from madcrow_events import (
    BaseEventContext,
    Batch,
    Emission,
    EventDispatcher,
    HandlerErrors,
    HandlerTimeoutError,
    SignalRegistry,
)
from madcrow_events.testing.recorder import record_events
from support.inside import BackgroundLoop


class Payload:
    pass


class Happened(BaseEventContext):
    payload: Any = None


class Service:
    """Its methods fail in every shape, a frame below their own."""

    calls = 0

    def fail(self) -> None:
        type(self).calls += 1
        raise ValueError("on purpose")

    def keywords(self, sender: Any, **context: Any) -> None:
        self.fail()

    def model(self, context: Happened) -> None:
        self.fail()

    def field(self, payload: Any) -> None:
        self.fail()

    def emission(self, emission: Emission) -> None:
        self.fail()

    def closure(self, emission: Emission) -> Any:
        self.fail()
        return lambda: emission

    def empty_cell(self, sender: Any, **context: Any) -> Any:
        self.fail()
        never = None
        return lambda: never

    def chained(self, emission: Emission) -> None:
        try:
            self.fail()
        except ValueError as error:
            raise KeyError from error

    def several(self, emission: Emission) -> None:
        try:
            self.fail()
        except ValueError as error:
            raise HandlerErrors("a group", [error]) from None

    def in_a_list(self, emission: Emission) -> None:
        self.save([emission], {"emission": None})

    def in_a_mapping(self, emission: Emission) -> None:
        self.save([], {"emission": emission})

    def save(self, emissions: list[Any], by_name: dict[str, Any]) -> None:
        del self, emissions
        Command(by_name).run()

    def in_an_object(self, emission: Emission) -> None:
        command = Command(emission)
        del self, emission
        command.run()

    def in_a_closure(self, emission: Emission) -> None:
        def inner() -> Any:
            return lambda: emission

        kept = inner()
        self.fail()
        kept()

    def in_a_method(self, emission: Emission) -> None:
        wait = emission.wait
        del emission
        self.fail()
        wait()

    def in_a_block(self, sender: Any, **context: Any) -> None:
        with EventDispatcher(SignalRegistry()).deferred() as deferral:
            deferral.discard()
            self.fail()

    async def async_keywords(self, sender: Any, **context: Any) -> None:
        self.fail()

    async def async_model(self, context: Happened) -> None:
        await asyncio.sleep(0)
        self.fail()

    async def async_emission(self, emission: Emission) -> None:
        await asyncio.sleep(0)
        self.fail()

    async def slow(self, emission: Emission) -> None:
        type(self).calls += 1
        await asyncio.sleep(60)

    def batch(self, batch: list[Any]) -> None:
        self.fail()

    def batch_of_emissions(self, batch: list[Emission]) -> None:
        self.fail()

    async def async_batch(self, batch: list[Any]) -> None:
        self.fail()


class Command:
    def __init__(self, subject: Any) -> None:
        self.subject = subject

    def run(self) -> None:
        Service.calls += 1
        raise ValueError("on purpose")


class Observer:
    @contextmanager
    def emission(self, emission: Emission) -> Iterator[None]:
        yield

    @contextmanager
    def handling(self, emission: Emission, handler: Any) -> Iterator[None]:
        yield


class Story(NamedTuple):
    method: str
    emit: str
    options: Mapping[str, Any] = MappingProxyType({})

    def __str__(self) -> str:
        return "-".join([self.method, self.emit, *self.options])


HOLDING = [
    *("in_a_list", "in_a_mapping", "in_an_object", "in_a_closure", "in_a_method", "in_a_block"),
]
PLAIN = ["keywords", "model", "field", "emission", "closure", "empty_cell", "chained", "several"]
ASYNC = ["async_keywords", "async_model", "async_emission"]
BATCHES = ["batch", "batch_of_emissions", "async_batch"]
STORIES = [
    *(Story(method, "emit") for method in PLAIN + HOLDING),
    *(Story(method, "emit_typed") for method in PLAIN),
    *(Story(method, "emit_async") for method in PLAIN + ASYNC),
    *(Story(method, "emit_typed_async") for method in PLAIN + ASYNC),
    *(Story(method, "deferred") for method in PLAIN),
    *(Story(method, "deferred_async") for method in PLAIN + ASYNC),
    *(Story(method, "deliver elsewhere") for method in PLAIN + HOLDING + ASYNC),
    # On 3.12 and 3.13, the loop that runs here keeps a circle until the collector runs.
    *(Story(method, "deliver here") for method in ASYNC if sys.version_info[1] not in (12, 13)),
    *(Story(method, "deliver_async") for method in PLAIN + ASYNC),
    *(Story(method, "emit", {"on_error": "raise"}) for method in PLAIN + HOLDING),
    *(Story(method, "emit_async", {"on_error": "raise"}) for method in PLAIN + ASYNC),
    *(Story(method, "deferred", {"on_error": "raise"}) for method in PLAIN),
    *(Story(method, "wait") for method in ASYNC),
    *(Story(method, "wait", {"background": True}) for method in PLAIN + ASYNC),
    *(Story(method, "wait", {"batch": Batch(max_size=1)}) for method in BATCHES),
    Story("slow", "emit_async", {"timeout": 0.001}),
    Story("slow", "wait", {"timeout": 0.001, "background": True}),
]


def emit(dispatcher: EventDispatcher, way: str, payload: Payload) -> None:
    """Emit, and hold nothing of what comes of it."""
    if way == "emit":
        dispatcher.emit("happened", payload=payload)
    elif way == "emit_typed":
        dispatcher.emit_typed("happened", Happened(payload=payload))
    elif way == "deferred":
        with dispatcher.deferred():
            dispatcher.emit("happened", payload=payload)
    elif way == "wait":
        emission = dispatcher.emit("happened", payload=payload)
        emission.wait(10)
        try:
            emission.raise_for_failures()
        finally:
            del emission
    elif way.startswith("deliver "):
        (subscription,) = dispatcher.signals["happened"].subscriptions
        with pytest.MonkeyPatch.context() as patch:
            if way == "deliver here":  # as where no thread can be started
                patch.setattr(BackgroundLoop, "get", lambda _: None)
            dispatcher.deliver(subscription, Happened(payload=payload))
    else:
        asyncio.run(emit_async(dispatcher, way, payload))


async def emit_async(dispatcher: EventDispatcher, way: str, payload: Payload) -> None:
    try:
        if way == "emit_async":
            await dispatcher.emit_async("happened", payload=payload)
        elif way == "emit_typed_async":
            await dispatcher.emit_typed_async("happened", Happened(payload=payload))
        elif way == "deliver_async":
            (subscription,) = dispatcher.signals["happened"].subscriptions
            await dispatcher.deliver_async(subscription, Happened(payload=payload))
        else:
            async with dispatcher.deferred():
                await dispatcher.emit_async("happened", payload=payload)
    except (ValueError, KeyError, HandlerErrors, HandlerTimeoutError):
        pass  # here, for `asyncio.run` makes a circle of its own


@pytest.fixture
def _without_collector() -> Iterator[None]:
    logging.disable()  # pytest keeps records, and a record its exception
    gc.disable()
    yield
    gc.enable()
    logging.disable(logging.NOTSET)


@pytest.mark.guarantee("F1")
@pytest.mark.guarantee("L1")
@pytest.mark.guarantee("H11")
@pytest.mark.parametrize(
    ("on_error", "observed"),
    [
        *(("log", False), ("raise", False), ("log", True)),
        pytest.param("raise", True, marks=pytest.mark.once),
    ],
)
@pytest.mark.parametrize("story", STORIES, ids=str)
@pytest.mark.usefixtures("_without_collector")
def test_a_failure_keeps_neither_object_nor_context_alive(
    signals: SignalRegistry, story: Story, on_error: Any, observed: bool
) -> None:
    signals.signal("happened", context=Happened)
    signals.signal("handler_failed")
    with EventDispatcher(signals, on_error=on_error) as dispatcher:
        if observed:
            dispatcher.add_observer(Observer())
        service, payload = Service(), Payload()
        signals.subscribe("happened", getattr(service, story.method), **story.options)
        alive = [weakref.ref(service), weakref.ref(payload)]
        Service.calls = 0
        try:
            emit(dispatcher, story.emit, payload)
        except (ValueError, KeyError, HandlerErrors, HandlerTimeoutError):
            pass
    assert Service.calls == 1
    del service, payload
    assert [reference() for reference in alive] == [None, None]


@pytest.mark.guarantee("F1")
@pytest.mark.usefixtures("_without_collector")
def test_a_method_that_has_failed_is_not_called_again_when_its_object_is_gone(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    signals.signal("happened")
    service = Service()
    signals.subscribe("happened", service.keywords)
    Service.calls = 0
    dispatcher.emit("happened")
    del service
    assert dispatcher.emit("happened").ok
    assert Service.calls == 1


@pytest.mark.guarantee("F1")
@pytest.mark.usefixtures("_without_collector")
def test_an_exit_after_a_failure_keeps_nothing_alive_either(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    def exits() -> None:
        raise SystemExit

    signals.signal("happened")
    service, payload = Service(), Payload()
    signals.subscribe("happened", service.emission, priority=1)
    signals.subscribe("happened", exits)
    alive = [weakref.ref(service), weakref.ref(payload)]
    with pytest.raises(SystemExit) as caught:
        dispatcher.emit("happened", payload=payload)
    del service, payload, caught
    assert [reference() for reference in alive] == [None, None]


@pytest.mark.guarantee("F5")
@pytest.mark.usefixtures("_without_collector")
def test_a_chain_without_end_keeps_nothing_alive_either(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    class Endless:
        def again(self, **context: Any) -> None:
            dispatcher.emit("happened", **context)

    signals.signal("happened")
    service, payload = Endless(), Payload()
    signals.subscribe("happened", service.again)
    alive = [weakref.ref(service), weakref.ref(payload)]
    assert not dispatcher.emit("happened", payload=payload).ok
    del service, payload
    assert [reference() for reference in alive] == [None, None]


@pytest.mark.guarantee("E7")
@pytest.mark.usefixtures("_without_collector")
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("method", ["report", "report_and_fail", "report_async"])
def test_the_announcement_of_a_failure_keeps_nothing_alive_either(
    signals: SignalRegistry, method: str, background: bool
) -> None:
    """Though it holds the emission that failed, for its own handlers."""

    class Reporter:
        async def report_async(self, emission: Emission) -> None:
            await asyncio.sleep(0)
            self.report(emission)

        def report(self, emission: Emission) -> None:
            cause = emission.cause
            assert cause is not None
            told.extend(type(it.exception) for it in cause.failures)

        def report_and_fail(self, emission: Emission) -> None:
            self.report(emission)
            raise KeyError from emission.cause.failures[0].exception

    told: list[type[BaseException]] = []
    signals.signal("happened")
    service, payload, reporter = Service(), Payload(), Reporter()
    signals.subscribe("happened", service.emission, background=background)
    signals.subscribe("handler_failed", getattr(reporter, method), background=background)
    alive = [weakref.ref(it) for it in (service, payload, reporter)]
    with EventDispatcher(signals) as dispatcher:
        dispatcher.emit("happened", payload=payload)
        assert dispatcher.drain(10)
    assert told == [ValueError]
    del service, payload, reporter
    assert [reference() for reference in alive] == [None] * 3


@pytest.mark.guarantee("F1")
@pytest.mark.parametrize("method", ["keywords", "emission"])
def test_who_holds_the_emission_has_the_whole_traceback(
    signals: SignalRegistry, dispatcher: EventDispatcher, method: str
) -> None:
    signals.signal("happened")
    service = Service()
    signals.subscribe("happened", getattr(service, method))
    (failure,) = dispatcher.emit("happened").failures
    lines = traceback.extract_tb(failure.exception.__traceback__)
    assert [line.name for line in lines][-2:] == [method, "fail"]


@pytest.mark.guarantee("F1")
@pytest.mark.guarantee("H11")
@pytest.mark.parametrize("on_error", ["log", "raise", "raised by the handler"])
def test_variables_stay_for_a_debugger_where_a_failure_is_raised(
    monkeypatch: pytest.MonkeyPatch, signals: SignalRegistry, on_error: Any
) -> None:
    """If the handler holds nothing of the emission; error trackers see them in the log."""

    def failing(payload: str) -> None:
        raise ValueError(payload)

    def look(record: logging.LogRecord) -> bool:
        seen.append(variables_of(record.exc_info[1]))  # type: ignore[index,arg-type]
        return True

    seen: list[dict[str, Any]] = []
    signals.signal("happened")
    by_handler = on_error == "raised by the handler"
    signals.subscribe("happened", failing, on_error="raise" if by_handler else None)
    monkeypatch.setattr(logging.getLogger("madcrow_events"), "filters", [look])
    dispatcher = EventDispatcher(signals, on_error="log" if by_handler else on_error)
    with record_events(signals=signals) as recorder:
        try:
            dispatcher.emit("happened", payload="it")
        except ValueError:
            pass
    (failure,) = recorder.emissions[0].failures
    assert seen == [{"payload": "it"}]
    assert variables_of(failure.exception) == ({} if on_error == "log" else {"payload": "it"})


def variables_of(error: BaseException) -> dict[str, Any]:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return dict(frame.f_locals)


@pytest.mark.guarantee("F1")
async def test_a_task_that_has_seen_the_same_exception_goes_on(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """It is part of the traceback, and holds the emission, but has not ended."""
    shared: list[Exception] = []
    told = asyncio.Event()

    async def reads(emission: Emission) -> str:
        try:
            raise ConnectionError  # noqa: TRY301  # its traceback is to show this frame
        except ConnectionError as error:
            shared.append(error)
        await told.wait()
        return emission.event

    async def fails(emission: Emission) -> None:
        reading.append(asyncio.create_task(reads(emission)))
        await asyncio.sleep(0)
        raise shared[0]

    reading: list[asyncio.Task[str]] = []
    signals.signal("happened")
    signals.subscribe("happened", fails)
    emission = await dispatcher.emit_async("happened")
    assert not emission.ok
    told.set()
    assert await reading[0] == "happened"
