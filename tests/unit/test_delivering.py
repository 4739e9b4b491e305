"""Calling one handler for one event, as the workers of queues do (K2)."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from madcrow_events import (
    BaseEventContext,
    Batch,
    ContextTypeError,
    ContextValidationError,
    DispatcherClosedError,
    Emission,
    EmissionDepthError,
    EventDispatcher,
    EventLoopError,
    EventSignal,
    GenericEventContext,
    HandlerFailedEventContext,
    HandlerTimeoutError,
    InvalidOptionError,
    SignalRegistry,
    UnknownEventError,
    WouldDeadlockError,
    current_event,
    event_scope,
    get_event_dispatcher,
    madcrow_signals,
)
from madcrow_events.testing import fake_events, record_events
from support.deliveries import WAYS, Delivers, Happened
from support.executions import RUNS, Run
from support.waiting import LIMIT

pytestmark = pytest.mark.guarantee("K2")


@pytest.fixture(params=WAYS, ids=str)
def delivers(request: pytest.FixtureRequest, dispatcher: EventDispatcher) -> Delivers:
    return Delivers(request.param, dispatcher)


def do_nothing(_emission: object) -> None:
    pass


# The call


def test_a_handler_knows_which_attempt_it_is(delivers: Delivers) -> None:
    """What it emits begins anew."""
    delivers.signals.signal("other")
    emit = delivers.dispatcher.emit

    bound = delivers.bind(lambda emission: (emission.attempt, emit("other").attempt))
    attempts = [delivers(bound, Happened(number=7), attempt=it).results[0].value for it in (1, 3)]
    assert attempts == [(1, 1), (3, 1)]
    assert delivers(bound, Happened(number=7)).attempt == 1
    assert delivers(bound, Happened(number=7), attempt=2).attempt == 2


@pytest.mark.parametrize("attempt", [0, -1, True, 1.0, None, "1"])
def test_an_attempt_that_is_no_positive_int_is_refused(delivers: Delivers, attempt: Any) -> None:
    with pytest.raises(InvalidOptionError, match="attempt") as raised:
        delivers(delivers.bind(do_nothing), Happened(number=7), attempt=attempt)
    assert raised.value.option == "attempt"


def test_a_handler_knows_what_another_service_has_said_of_the_event(delivers: Delivers) -> None:
    """Nothing of it is used, and what the handler emits is from here."""
    delivers.signals.signal("other")
    given = {"source": "/shop", "id": "17", "sender": "till 3", "correlationid": "c"}
    inner: list[Emission[Any]] = []

    def emit(emission: Emission[Any]) -> None:
        inner.append(delivers.dispatcher.emit("other"))
        with event_scope(request_id="r-1"):
            inner.append(delivers.dispatcher.emit("other"))

    emission = delivers(delivers.bind(emit), origin=given)
    given.clear()
    assert emission.origin == {
        "source": "/shop",
        "id": "17",
        "sender": "till 3",
        "correlationid": "c",
    }
    with pytest.raises(TypeError):
        emission.origin["id"] = "18"  # type: ignore[index]  # it cannot be changed
    assert emission.sender is delivers.signal
    assert emission.correlation_id == emission.id
    assert [it.origin for it in inner] == [None, None]
    assert delivers(delivers.bind(do_nothing)).origin is None
    assert delivers.dispatcher.emit("other").origin is None


@pytest.mark.parametrize("origin", ["/shop", [("id", "17")], {"id": 17}, {17: "id"}, {"id": None}])
def test_an_origin_that_is_no_mapping_of_texts_is_refused(delivers: Delivers, origin: Any) -> None:
    with pytest.raises(InvalidOptionError, match=r"such as \{'source': '/shop'") as raised:
        delivers(delivers.bind(do_nothing), origin=origin)
    assert raised.value.option == "origin"


def test_one_handler_is_called_and_no_other(delivers: Delivers) -> None:
    heard: list[str] = []
    delivers.signal.subscribe(lambda: heard.append("another"))
    bound = delivers.bind(lambda emission: (emission, emission.state))

    emission = delivers(bound, Happened(number=7), sender="shop")

    ((inside, state),) = [result.value for result in emission.results]
    assert inside is emission
    assert heard == []
    assert (state, emission.state, emission.pending) == ("running", "done", 0)
    assert emission.ok
    assert emission.wait()
    assert (emission.signal, emission.event) == (delivers.signal, "thing_happened")
    assert (emission.sender, emission.context.number) == ("shop", 7)
    assert emission.fields["number"] == 7
    assert emission.dispatcher is delivers.dispatcher
    assert repr(emission) == "<Emission thing_happened, results: 1, failures: 0>"
    assert current_event() is None


def test_without_a_sender_it_is_the_signal(delivers: Delivers) -> None:
    assert delivers(delivers.bind(do_nothing)).sender is delivers.signal


def test_sender_when_once_and_muting_are_not_asked(delivers: Delivers) -> None:
    """The code that delivers has asked what it wanted to know."""
    bound = delivers.bind(
        lambda emission: emission.context.number,
        sender="shop",
        when=lambda fields: False,
        once=True,
    )
    with delivers.signal.muted():
        values = [delivers(bound, Happened(number=n)).results[0].value for n in (1, 2)]

    assert values == [1, 2]
    assert bound.active


def test_nothing_around_the_call_counts(delivers: Delivers) -> None:
    """No block holds back what it emits, no scope fills it in, and it is nested in nothing."""
    nested: list[Emission[Any]] = []
    other = delivers.signals.signal("other")

    def note(emission: Emission[Any]) -> Any:
        nested.append(delivers.dispatcher.emit(other))
        return emission.parent, emission.depth, emission.cause, emission.causation_id

    def deliver() -> Emission[Any]:
        with (
            delivers.dispatcher.deferred() as deferral,
            event_scope(request_id="around", ip_address="::1"),
        ):
            emission = delivers(bound)
            assert deferral.discard() == 0
            return emission

    bound = delivers.bind(note)
    delivers.signals.signal("outer").subscribe(deliver)

    emission = delivers.dispatcher.emit("outer").results[0].value

    assert emission.results[0].value == (None, 0, None, None)
    assert emission.context.request_id is None
    (inner,) = nested
    assert inner.state == "done"
    assert inner.fields == {}
    assert (inner.parent, inner.depth, inner.cause) == (emission, 1, emission)
    assert inner.causation_id == inner.correlation_id == emission.id


@pytest.mark.parametrize("takes", ["keywords", "fields", "emission", "nothing"])
def test_a_handler_may_have_any_form(dispatcher: EventDispatcher, takes: str) -> None:
    seen: list[Any] = []
    handlers: dict[str, Any] = {
        "keywords": lambda sender, **context: seen.append((sender, context["number"])),
        "fields": lambda number: seen.append(number),
        "nothing": lambda: seen.append(None),
    }

    def emission(emission: Emission[Happened]) -> None:
        seen.append(emission.context.number)

    handlers["emission"] = emission
    bound = dispatcher.signals.signal("thing_happened", context=Happened).bind(handlers[takes])
    assert dispatcher.deliver(bound, Happened(number=3), sender="shop").ok
    assert seen == {"keywords": [("shop", 3)], "nothing": [None]}.get(takes, [3])


def test_a_generic_context_is_delivered_as_it_is_emitted(delivers: Delivers) -> None:
    bound = delivers.bind(lambda emission: type(emission.context))
    context = GenericEventContext(event_type="thing_happened", data={"number": 3})
    assert delivers(bound, context).results[0].value is GenericEventContext


def test_an_ordinary_subscription_is_delivered_to_as_well(delivers: Delivers) -> None:
    """Also one that runs later for emitters, and the part of a pattern for an event."""
    handler = delivers.handler(lambda emission: emission.depth)
    with delivers.signal.subscribe(handler, background=True):
        (subscription,) = delivers.signal.subscriptions
        assert delivers(subscription).results[0].value == 0
    with delivers.signals.subscribe("thing_*", lambda sender, **fields: sender.name):
        (part,) = delivers.signal.subscriptions
        assert delivers(part).results[0].value == "thing_happened"


def test_a_handler_that_is_held_weakly_is_named_in_its_results(delivers: Delivers) -> None:
    class Service:
        def plain(self) -> str:
            return "done"

        async def awaited(self) -> str:
            return "done"

    service = Service()
    handler = service.awaited if delivers.way.is_async else service.plain
    bound = delivers.signal.bind(handler)
    del handler
    assert bound.weak
    ((handler, value),) = delivers(bound).results
    assert (handler.__self__, value) == (service, "done")


def test_an_async_handler_sees_the_context_variables_of_the_caller(delivers: Delivers) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("set by the caller")
    assert delivers(delivers.bind(lambda _: variable.get())).results[0].value == variable.get()


# Failure


@pytest.mark.parametrize("option", [None, "raise"])
def test_a_failure_is_logged_once_and_recorded_and_not_raised(
    delivers: Delivers, caplog: pytest.LogCaptureFixture, option: Any
) -> None:
    """Whatever the dispatcher or the handler says of failures."""
    delivers.dispatcher.on_error = "raise"
    error = ValueError("on purpose")
    handler = delivers.failing(error)
    announced: list[Any] = []
    delivers.signals.subscribe("handler_failed", lambda: announced.append(1))

    emission = delivers(delivers.signal.bind(handler, on_error=option, id="mail"))

    assert [(it.handler, it.exception) for it in emission.failures] == [(handler, error)]
    assert (emission.ok, emission.results, emission.state) == (False, (), "done")
    assert emission.wait()
    (record,) = caplog.records
    assert (record.levelname, "mail" in record.getMessage()) == ("ERROR", True)
    assert announced == []


@pytest.mark.parametrize("awaits", [False, True], ids=["announce", "announce_async"])
def test_the_caller_announces_a_failure(delivers: Delivers, awaits: bool) -> None:
    """The announcement is caused by the delivery, whose failures its handlers can read."""
    announced: list[Emission[Any]] = []

    async def note(emission: Emission[Any]) -> None:
        announced.append(emission)

    delivers.signals.subscribe("handler_failed", note)
    error = ValueError("on purpose")
    delivery = delivers(
        delivers.signal.bind(delivers.failing(error), id="mail"), scope={"request_id": "r-1"}
    )
    dispatcher = delivers.dispatcher.with_options(on_error="raise")
    if awaits:
        asyncio.run(dispatcher.announce_async(delivery))
    else:
        dispatcher.announce(delivery)
        assert delivers.dispatcher.drain(LIMIT)

    (emission,) = announced
    context = emission.context
    assert (context.event_name, context.handler_name) == ("thing_happened", "mail")
    assert (context.exception_type, context.request_id) == ("ValueError", "r-1")
    assert emission.cause is delivery
    assert emission.causation_id == delivery.id
    assert [it.exception for it in delivery.failures] == [error]


@pytest.mark.parametrize("awaits", [False, True], ids=["announce", "announce_async"])
def test_what_did_not_fail_is_not_announced(dispatcher: EventDispatcher, awaits: bool) -> None:
    heard: list[int] = []
    signal = dispatcher.signals.signal("thing_happened")
    dispatcher.signals.subscribe("handler_failed", lambda: heard.append(1))
    delivery = dispatcher.deliver(signal.bind(lambda: None), BaseEventContext())
    if awaits:
        asyncio.run(dispatcher.announce_async(delivery))
    else:
        dispatcher.announce(delivery)
    assert heard == []


@pytest.mark.guarantee("F1")
def test_a_failed_delivery_of_an_announcement_is_not_announced(delivers: Delivers) -> None:
    """As under F1, or announcements would follow each other without end."""
    heard: list[int] = []
    announcement = delivers.signals.resolve("handler_failed")
    announcement.subscribe(lambda: heard.append(1))

    def fail() -> None:
        raise ValueError("on purpose")

    context = HandlerFailedEventContext(event_name="a", handler_name="b", exception_type="c")
    delivery = delivers(announcement.bind(fail), context)
    delivers.dispatcher.announce(delivery)
    assert (len(delivery.failures), heard) == (1, [])


@pytest.mark.guarantee("N9")
def test_a_dispatcher_of_another_registry_announces_nothing(dispatcher: EventDispatcher) -> None:
    signal = dispatcher.signals.signal("thing_happened")
    delivery = dispatcher.deliver(signal.bind(lambda: None), BaseEventContext())
    other = EventDispatcher(SignalRegistry())
    with pytest.raises(UnknownEventError, match="belongs to"):
        other.announce(delivery)
    with pytest.raises(UnknownEventError, match="belongs to"):
        asyncio.run(other.announce_async(delivery))


def test_a_chain_without_end_is_a_failure_of_the_delivery(delivers: Delivers) -> None:
    loop = delivers.signals.signal("loop")
    loop.subscribe(lambda: delivers.dispatcher.emit(loop))
    emission = delivers(delivers.bind(lambda _: delivers.dispatcher.emit(loop)))
    assert [type(failure.exception) for failure in emission.failures] == [EmissionDepthError]


@pytest.mark.guarantee("A5")
@pytest.mark.parametrize("awaits", [False, True], ids=["deliver", "deliver_async"])
def test_an_async_handler_is_cancelled_after_its_timeout(
    dispatcher: EventDispatcher, awaits: bool
) -> None:
    async def sleep() -> None:
        await asyncio.sleep(LIMIT)

    bound = dispatcher.signals.signal("thing_happened").bind(sleep, timeout=0.01)
    if awaits:
        emission = asyncio.run(dispatcher.deliver_async(bound, BaseEventContext()))
    else:
        emission = dispatcher.deliver(bound, BaseEventContext())
    assert [type(failure.exception) for failure in emission.failures] == [HandlerTimeoutError]


class Exit(BaseException):
    """As KeyboardInterrupt, which pytest keeps for itself."""


@pytest.mark.guarantee("F3")
@pytest.mark.parametrize("error", [Exit("on purpose"), SystemExit(3)], ids=["exit", "SystemExit"])
def test_an_exit_of_the_handler_reaches_the_caller(
    delivers: Delivers, error: BaseException
) -> None:
    """And the loop that it was raised in goes on."""
    observed: list[Any] = []
    observer = Watching(observed)
    delivers.dispatcher.add_observer(observer)
    bound = delivers.signal.bind(delivers.failing(error))
    for _ in range(2):
        with pytest.raises(type(error)) as raised:
            delivers(bound)
        assert raised.value is error
    assert observed[-1] == ("emission", error)
    assert delivers(delivers.bind(do_nothing)).ok
    assert current_event() is None


@pytest.mark.guarantee("F3")
def test_a_cancelled_error_of_the_handler_is_its_failure(delivers: Delivers) -> None:
    emission = delivers(delivers.signal.bind(delivers.failing(asyncio.CancelledError())))
    assert [type(it.exception) for it in emission.failures] == [asyncio.CancelledError]


@pytest.mark.guarantee("A1")
async def test_a_caller_that_is_cancelled_takes_the_handler_along(
    dispatcher: EventDispatcher,
) -> None:
    async def sleep() -> None:
        begun.set()
        try:
            await asyncio.sleep(LIMIT)
        finally:
            ended.append(True)

    begun, ended = asyncio.Event(), list[bool]()
    bound = dispatcher.signals.signal("thing_happened").bind(sleep)
    task = asyncio.create_task(dispatcher.deliver_async(bound, BaseEventContext()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]


# Observers


class Watching:
    """Notes what it enters and leaves."""

    def __init__(self, notes: list[Any]) -> None:
        self.notes = notes

    def emission(self, emission: Emission[Any], /) -> AbstractContextManager[object]:
        return Noting(self.notes, "emission")

    def handling(self, emission: Emission[Any], handler: Any, /) -> AbstractContextManager[object]:
        self.notes.append(emission.name_of(handler))
        return Noting(self.notes, "handling")


class Noting:
    def __init__(self, notes: list[Any], name: str) -> None:
        self.notes, self.name = notes, name

    def __enter__(self) -> None:
        self.notes.append(self.name)

    def __exit__(self, *exc_info: object) -> None:
        self.notes.append((self.name, exc_info[1]))


@pytest.mark.guarantee("B6")
def test_observers_see_an_emission_with_one_handler(delivers: Delivers) -> None:
    notes: list[Any] = []
    error = ValueError("on purpose")
    delivers.dispatcher.add_observer(Watching(notes))
    for handler, outcome in (
        (delivers.handler(do_nothing), None),
        (delivers.failing(error), error),
    ):
        notes.clear()
        delivers(delivers.signal.bind(handler, id="mail"))
        assert notes == ["emission", "mail", "handling", ("handling", outcome), ("emission", None)]


def test_the_debug_log_has_the_delivery(
    delivers: Delivers, caplog: pytest.LogCaptureFixture
) -> None:
    bound = delivers.bind(do_nothing, id="mail")
    caplog.set_level(logging.DEBUG, logger="madcrow_events")
    delivers(bound)
    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith("thing_happened emitted by ")
    assert second.startswith("handler mail of thing_happened returned after ")


# What is refused, before the handler is called


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"id": "0197c1a2-4d5e-7f60-8a9b-0c1d2e3f4a5b"}, "id"),
        ({"correlation_id": 7}, "correlation_id"),
        ({"causation_id": b""}, "causation_id"),
        ({"scope": ["request_id"]}, "scope"),
        ({"scope": {7: "r-1"}}, "scope"),
        ({"scope": {"request": "r-1"}}, "request"),
        ({"scope": {"request_id": 7}}, "request_id"),
    ],
)
def test_ids_and_scopes_are_checked(delivers: Delivers, given: dict[str, Any], option: str) -> None:
    with pytest.raises(InvalidOptionError) as refused:
        delivers(delivers.bind(do_nothing), **given)
    assert refused.value.option == option


def test_a_context_of_another_model_is_refused(delivers: Delivers) -> None:
    bound = delivers.bind(do_nothing)
    for context in (BaseEventContext(), {"number": 1}, Happened):
        with pytest.raises(ContextTypeError, match="thing_happened carries"):
            delivers(bound, context)
    with pytest.raises(ContextTypeError, match="a second context, as the sender"):
        delivers(bound, sender=Happened())


def test_a_context_that_lacks_fields_is_refused(delivers: Delivers) -> None:
    """Not a failure of the handler, which could do nothing about it."""
    called: list[Any] = []
    context = Happened()
    del vars(context)["number"]
    with pytest.raises(ContextValidationError, match="has no value"):
        delivers(delivers.bind(called.append), context)
    assert called == []


@pytest.mark.guarantee("N9")
def test_a_subscription_of_another_registry_is_refused(delivers: Delivers) -> None:
    theirs = SignalRegistry().signal("thing_happened", context=Happened)
    handler = delivers.handler(do_nothing)
    with pytest.raises(UnknownEventError, match="belongs to"):
        delivers(theirs.bind(handler))
    with pytest.raises(UnknownEventError, match="belongs to no event of"):
        delivers(theirs.subscribe(handler))


@pytest.mark.guarantee("K1")
def test_an_event_that_was_removed_is_not_delivered(delivers: Delivers) -> None:
    """Neither to a bound handler nor to another, even if its name is declared again."""
    handler = delivers.handler(do_nothing)
    both = delivers.signal.bind(handler), delivers.signal.subscribe(handler)
    for again in (False, True):
        delivers.signals.pop("thing_happened")
        if again:
            delivers.signals.signal("thing_happened", context=Happened)
        for subscription in both:
            with pytest.raises(UnknownEventError, match="the event was removed"):
                delivers(subscription)
        delivers.signals.signal("thing_happened")


@pytest.mark.parametrize("records", [record_events, fake_events])
def test_a_block_of_a_test_records_deliveries(
    delivers: Delivers, records: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """And one that fakes events keeps a bound handler from being called, too."""
    called: list[Any] = []
    bound = delivers.bind(called.append)
    caplog.set_level(logging.DEBUG)
    with records("thing_*", signals=delivers.signals) as events:
        emission = delivers(bound, Happened(number=7))
    events.assert_emitted("thing_happened", times=1, number=7)
    assert events.emissions == (emission,)
    assert (emission.state, emission.pending, emission.failures) == ("done", 0, ())
    assert called == [emission][: len(emission.results)]
    is_faked = records is fake_events
    assert bool(called) is not is_faked
    assert any("faked by a test" in it.getMessage() for it in caplog.records) is is_faked

    delivers.signals.signal("other")
    with records("other", signals=delivers.signals) as events:
        assert delivers(bound).results
    assert events.emissions == ()


def test_a_signal_that_is_in_no_registry_is_delivered_by_any_dispatcher(
    delivers: Delivers,
) -> None:
    """As it is emitted."""
    signal = EventSignal("by_hand", context=Happened)
    assert delivers(signal.bind(delivers.handler(do_nothing))).event == "by_hand"


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda signal: signal.name, "not str: bind the handler"),
        (lambda signal: signal, "not EventSignal: bind the handler"),
        (
            lambda signal: signal._registry.subscribe("thing_*", print_nothing),
            r"'thing_\*' may be many events",
        ),
        (lambda signal: signal.subscribe(take_batch, batch=Batch(1, 1)), "takes batches"),
    ],
    ids=["name", "signal", "pattern", "batch"],
)
def test_only_a_subscription_to_single_events_can_be_delivered_to(
    delivers: Delivers, make: Callable[[Any], Any], problem: str
) -> None:
    with pytest.raises(InvalidOptionError, match=problem) as refused:
        delivers(make(delivers.signal))
    assert refused.value.option == "bound"


def print_nothing() -> None:
    pass


def take_batch(batch: list[Happened]) -> None:
    pass


@pytest.mark.parametrize("is_bound", [True, False], ids=["bound", "subscribed"])
def test_a_subscription_that_has_ended_is_refused(delivers: Delivers, is_bound: bool) -> None:
    handler = delivers.handler(do_nothing)
    make = delivers.signal.bind if is_bound else delivers.signal.subscribe
    subscription = make(handler)
    with subscription:
        assert delivers(subscription).ok
    with pytest.raises(InvalidOptionError, match="has ended: bind the handler again"):
        delivers(subscription)
    weak = make(delivers.handler(do_nothing), weak=True)
    gc.collect()
    with pytest.raises(InvalidOptionError, match="has ended: bind the handler again"):
        delivers(weak)


def test_a_closed_dispatcher_delivers_nothing(delivers: Delivers) -> None:
    bound = delivers.bind(do_nothing)
    delivers.dispatcher.close()
    with pytest.raises(DispatcherClosedError, match="deliver before close") as refused:
        delivers(bound)
    assert refused.value.event == "thing_happened"


# Where an async handler runs


@pytest.fixture
def names(dispatcher: EventDispatcher) -> Any:
    """Return a bound async handler that returns the name of its thread."""

    async def name_thread() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    return dispatcher.signals.signal("thing_happened", context=Happened).bind(name_thread)


def test_a_thread_waits_for_the_loop_of_the_dispatcher(
    dispatcher: EventDispatcher, names: Any
) -> None:
    """Always the same one, so that pools and clients can be kept."""
    found = {dispatcher.deliver(names, Happened()).results[0].value for _ in range(3)}
    assert found == {"madcrow-events-loop"}
    dispatcher.signals.signal("other").subscribe(names.handler, background=True)
    assert dispatcher.emit("other").wait(LIMIT)


async def test_a_thread_waits_for_the_loop_that_is_bound(
    dispatcher: EventDispatcher, names: Any
) -> None:
    with dispatcher.bind_loop():
        emission = await asyncio.to_thread(dispatcher.deliver, names, Happened())
    assert emission.results[0].value == threading.current_thread().name


def test_a_bound_loop_that_does_not_run_is_an_error(
    dispatcher: EventDispatcher, names: Any
) -> None:
    loop = asyncio.new_event_loop()
    with (
        dispatcher.bind_loop(loop),
        pytest.raises(WouldDeadlockError, match="in an event loop that does not run"),
    ):
        dispatcher.deliver(names, Happened())
    loop.close()
    assert dispatcher.deliver(names, Happened()).ok


async def test_a_running_loop_is_not_stopped_for_an_async_handler(
    dispatcher: EventDispatcher, names: Any
) -> None:
    """A plain one is called in place, as by `emit`."""
    with pytest.raises(WouldDeadlockError, match=r"await deliver_async\(\)"):
        dispatcher.deliver(names, Happened())
    signal = dispatcher.signals["thing_happened"]
    assert dispatcher.deliver(signal.bind(lambda number: number), Happened()).ok


def test_an_async_handler_can_only_be_awaited_where_asyncio_runs(
    dispatcher: EventDispatcher, names: Any
) -> None:
    delivery = dispatcher.deliver_async(names, Happened())
    with pytest.raises(EventLoopError, match="no event loop runs"):
        delivery.send(None)


def test_another_async_library_is_not_stopped_either(
    dispatcher: EventDispatcher, names: Any
) -> None:
    trio = pytest.importorskip("trio")

    async def main() -> None:
        dispatcher.deliver(names, Happened())

    with pytest.raises(EventLoopError, match="trio runs here"):
        trio.run(main)


# Models and names that change


@pytest.fixture(params=RUNS, ids=lambda kind: kind.__name__)
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    made: Run = request.param(tmp_path, monkeypatch)
    return made


@pytest.mark.guarantee("N7")
def test_a_model_whose_module_runs_again_is_followed(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """The handler gets the new class, also from a context of the old one."""
    source = (
        "from madcrow_events import *\n"
        "@madcrow_signals.event\n"
        "class Placed(BaseEventContext):\n"
        "    order_id: int\n"
        "def handler(context: Placed):\n"
        "    return type(context)\n"
    )
    first = run(source)
    bound = madcrow_signals["placed"].bind(first["handler"])
    second = run(source)
    for model in (first["Placed"], second["Placed"]):
        emission = get_event_dispatcher().deliver(bound, model(order_id=1))
        assert emission.ok, emission.failures
        assert emission.results[0].value is second["Placed"]
        assert type(emission.context) is second["Placed"]
    assert [it.getMessage() for it in caplog.records if "import it again" in it.getMessage()]


@pytest.mark.guarantee("N8")
def test_an_event_that_is_renamed_is_followed(delivers: Delivers) -> None:
    """Without a warning: nobody uses the old name."""
    handler = delivers.handler(lambda emission: emission.event)
    if delivers.way.is_async:

        async def handler() -> Any:
            emission = current_event()
            assert emission
            return emission.event

    else:

        def handler() -> Any:
            emission = current_event()
            assert emission
            return emission.event

    old = delivers.signals.signal("thing_was_done")
    bound, subscribed = old.bind(handler), old.subscribe(handler)
    delivers.signals.signal("thing_done", context=Happened, formerly="thing_was_done")
    for subscription in (bound, subscribed):
        assert delivers(subscription).results[0].value == "thing_done"


# The ids


@pytest.mark.guarantee("K3")
def test_the_ids_of_the_event_are_those_of_its_delivery(delivers: Delivers) -> None:
    """What the handler emits is caused by the event, and belongs to its chain."""
    own, first, before = UUID(int=1), UUID(int=2), UUID(int=3)
    inner: list[Emission[Any]] = []

    def emit(emission: Emission[Any]) -> None:
        assert (emission.id, emission.correlation_id, emission.causation_id) == (own, first, before)
        inner.append(delivers.dispatcher.emit("other"))
        with event_scope(ip_address="::1"):
            inner.append(delivers.dispatcher.emit("other"))

    delivers.signals.signal("other")
    emission = delivers(
        delivers.bind(emit),
        id=own,
        correlation_id=first,
        causation_id=before,
        scope={"request_id": "r-1", "user_agent": None},
    )
    assert emission.ok, emission.failures
    assert (emission.id, emission.correlation_id, emission.causation_id) == (own, first, before)
    assert emission.cause is None
    for other in inner:
        assert (other.causation_id, other.correlation_id) == (own, first)
        assert other.cause is emission
        assert other.fields["request_id"] == "r-1"
        assert "user_agent" not in other.fields
    assert emission.context.request_id is None


@pytest.mark.guarantee("K3")
def test_ids_that_are_left_out_are_made(delivers: Delivers) -> None:
    """The delivery is then the first of its chain, even if its cause is known."""
    emission = delivers(delivers.bind(do_nothing))
    assert emission.id.version == 7
    assert (emission.correlation_id, emission.causation_id) == (emission.id, None)
    caused = delivers(delivers.bind(do_nothing), causation_id=UUID(int=3))
    assert (caused.correlation_id, caused.causation_id) == (caused.id, UUID(int=3))
    correlated = delivers(delivers.bind(do_nothing), correlation_id=UUID(int=2))
    assert correlated.correlation_id == UUID(int=2) != correlated.id
    alone = delivers(delivers.bind(do_nothing), id=UUID(int=1), correlation_id=UUID(int=1))
    assert alone.id == alone.correlation_id == UUID(int=1)


@pytest.mark.guarantee("K3")
def test_a_task_that_outlives_the_delivery_still_knows_its_cause(
    dispatcher: EventDispatcher,
) -> None:
    async def main() -> Emission[Any]:
        async def emit_later() -> Emission[Any]:
            await release.wait()
            return dispatcher.emit("other")

        async def handler() -> asyncio.Task[Emission[Any]]:
            return asyncio.create_task(emit_later())

        release = asyncio.Event()
        delivery = await dispatcher.deliver_async(
            signal.bind(handler), BaseEventContext(), id=UUID(int=1), correlation_id=UUID(int=2)
        )
        release.set()
        emission: Emission[Any] = await delivery.results[0].value
        return emission

    signal = dispatcher.signals.signal("thing_happened")
    dispatcher.signals.signal("other")
    emission = asyncio.run(main())
    assert (emission.causation_id, emission.correlation_id) == (UUID(int=1), UUID(int=2))
    assert (emission.parent, emission.depth) == (None, 0)
