"""What is emitted is recorded, and assertions on it tell what was emitted instead."""

import asyncio
import threading
from typing import Any

import pytest

from madcrow_events import (
    EventDispatcher,
    GenericEventContext,
    SignalRegistry,
    TimingObserver,
    UnknownEventError,
    clear_all_handlers,
    emit_event,
    madcrow_signals,
    user_logged_in,
)
from madcrow_events.exceptions import InvalidEventNameError, InvalidOptionError
from madcrow_events.testing import fake_events, record_events


@pytest.fixture(autouse=True)
def _declare(signals: SignalRegistry) -> None:
    signals.signal("paid")
    signals.signal("refunded")


def test_emissions_are_recorded_and_asserted_on(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    with record_events(signals=signals) as events:
        emission = dispatcher.emit("paid", amount=3, currency="EUR")
    assert events.emissions == (emission,)
    assert emission.results == ()
    assert events.assert_emitted("paid", times=1, amount=3) is emission
    assert events.assert_emitted("paid", where=lambda paid: paid["amount"] > 2) is emission
    events.assert_not_emitted("paid", amount=4)
    dispatcher.emit("paid", amount=4)
    events.assert_emitted("paid", times=1)
    events.clear()
    assert events.emissions == ()


@pytest.mark.parametrize(
    ("assertion", "message"),
    [
        (lambda it: it.assert_emitted("paid", amount=4), "paid(amount=4) was not emitted."),
        (lambda it: it.assert_emitted("paid", fee=4), "paid(fee=4) was not emitted."),
        (lambda it: it.assert_emitted("paid", times=3), "paid was emitted twice, not 3 times."),
        (lambda it: it.assert_emitted("refunded", times=1), "refunded was emitted never, not once"),
        (lambda it: it.assert_not_emitted("paid"), "paid was emitted twice."),
        (lambda it: it.assert_not_emitted("paid", n=7), "paid(n=7) was emitted once."),
        (lambda it: it.wait_for("paid", 0.001, n=9), "paid(n=9) was not emitted within 0.001 s."),
        (lambda it: it.assert_emitted("paid", where=is_odd), "paid(where=tests.unit.testing."),
    ],
)
def test_a_failure_shows_what_was_emitted_instead(
    signals: SignalRegistry, dispatcher: EventDispatcher, assertion: Any, message: str
) -> None:
    with record_events(signals=signals) as events:
        dispatcher.emit("paid", amount=3, currency="EUR")
        dispatcher.emit("paid", n=7)
    with pytest.raises(AssertionError) as caught:
        assertion(events)
    first, *others = str(caught.value).splitlines()
    assert first.startswith(message)
    assert others == [
        "Emitted, in this order:",
        "  paid(amount=3, currency='EUR')",
        "  paid(n=7)",
    ]


def is_odd(context: Any) -> bool:
    return bool(context.get("amount", 0) % 2 == 7)


def test_nothing_emitted_is_told(signals: SignalRegistry) -> None:
    with (
        record_events(signals=signals) as events,
        pytest.raises(AssertionError, match=r"paid was not emitted\.\nNothing was emitted\."),
    ):
        events.assert_emitted("paid")


def test_an_assertion_that_could_not_fail_is_refused(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    with record_events("paid", signals=signals) as events:
        pass
    with pytest.raises(UnknownEventError, match="did you mean paid"):
        events.assert_not_emitted("payd")
    with pytest.raises(AssertionError, match="refunded is not recorded, only paid: record it, too"):
        events.assert_not_emitted("refunded")
    with pytest.raises(InvalidOptionError, match="there is assert_not_emitted"):
        events.assert_emitted("paid", times=0)
    with pytest.raises(InvalidOptionError, match="timeout must be"):
        events.wait_for("paid", 0)
    for times in (True, "2", -1):
        with pytest.raises(InvalidOptionError, match="times must be an int"):
            events.assert_emitted("paid", times=times)  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="where must be a predicate"):
        events.assert_emitted("paid", where=5)  # type: ignore[arg-type]
    with record_events("*", signals=signals) as events:
        pass
    with pytest.raises(AssertionError, match="handler_failed is not recorded"):
        events.assert_not_emitted("handler_failed")
    with pytest.raises(AssertionError, match="use the recorder in a with block"):
        record_events(signals=signals).assert_not_emitted("paid")


def test_a_field_that_the_model_lacks_is_refused() -> None:
    with record_events() as events:
        with pytest.raises(AssertionError, match="has no field emial: did you mean email"):
            events.assert_not_emitted("user_logged_in", emial="a")
        with pytest.raises(AssertionError, match=r"LoginEventContext has no field colour$"):
            events.assert_emitted(user_logged_in, colour="a")
        emit_event("user_logged_in", colour="a")
    events.assert_emitted(user_logged_in, colour="a")
    events.assert_not_emitted("user-logged-in", colour="b")


def test_a_registry_that_is_not_strict_does_not_make_names_right() -> None:
    signals = SignalRegistry(strict=False)
    with record_events(signals=signals) as events:
        EventDispatcher(signals).emit("paid")
    with pytest.raises(UnknownEventError, match="did you mean paid"):
        events.assert_not_emitted("payd")
    assert "payd" not in signals


class Odd:
    """Compares and shows itself like an array, or worse."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        raise ValueError("no repr")


def test_values_of_any_kind_are_compared_and_shown(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    odd = Odd()
    with record_events(signals=signals) as events:
        dispatcher.emit("paid", data=odd)
    events.assert_emitted("paid", data=odd)
    with pytest.raises(AssertionError, match="values of data cannot be compared with ==: compare"):
        events.assert_emitted("paid", data=Odd())
    with pytest.raises(AssertionError, match=r"paid\(data=<Odd without a repr>\)"):
        events.assert_emitted("paid", other=1)


def test_a_signal_may_be_given_instead_of_its_name(signals: SignalRegistry) -> None:
    first, second = signals.signal("first"), signals.signal("second")
    with record_events(first, signals=signals) as events:
        for signal in (first, second):
            EventDispatcher(signals).emit(signal)
    assert [emission.signal for emission in events.emissions] == [first]


def test_names_and_patterns_are_checked(signals: SignalRegistry) -> None:
    with pytest.raises(InvalidEventNameError):
        record_events("No Name", signals=signals)
    with pytest.raises(UnknownEventError), fake_events("paid", "payd", signals=signals):
        pass
    assert not signals.subscriptions
    with record_events(signals=signals) as events, pytest.raises(RuntimeError), events:
        pass


def test_failures_of_handlers_are_recorded(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    def divide() -> None:
        raise ZeroDivisionError

    def divide_too() -> None:
        raise ZeroDivisionError

    signals.subscribe("paid", divide_too)
    signals.subscribe("paid", divide)
    with record_events(signals=signals) as events:
        dispatcher.emit("paid")
    events.assert_emitted("handler_failed", times=2, exception_type="ZeroDivisionError")
    with pytest.raises(AssertionError, match="divide was called for paid, and raised ZeroDivision"):
        events.assert_handled_by("paid", divide)


def test_a_handler_that_was_not_called_is_named(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    over = threading.Event()

    def other() -> None:
        pass

    def late() -> None:
        over.wait(5)

    signals.subscribe("paid", other)
    with record_events(signals=signals) as events:
        dispatcher.emit("paid")
        with pytest.raises(AssertionError, match=r"not handled by .*late, but by .*other\.\n"):
            events.assert_handled_by("paid", late)
        events.clear()
        signals.subscribe("paid", late, background=True)
        dispatcher.emit("paid")
        with pytest.raises(AssertionError, match="Some have not finished: drain"):
            events.assert_handled_by("paid", late)
        over.set()
        assert dispatcher.drain(5)
        events.assert_handled_by("paid", late)
    with pytest.raises(AssertionError, match="by nobody"):
        events.assert_handled_by("refunded", late)


async def test_an_async_block_sees_async_and_nested_emissions_once_each(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    @signals.resolve("paid").on()
    async def go_on() -> None:
        await asyncio.sleep(0)
        await dispatcher.emit_async("refunded", n=1)

    @signals.resolve("refunded").on(background=True)
    def emit_more() -> None:
        dispatcher.emit("paid.late")

    signals.signal("paid.late")
    async with record_events("paid*", "refunded", "*", signals=signals) as events:
        await dispatcher.emit_async("paid")
        await dispatcher.drain_async(5)
    assert [emission.event for emission in events.emissions] == ["paid", "refunded", "paid.late"]
    events.assert_handled_by("paid", go_on)
    events.assert_handled_by("refunded", emit_more)


async def test_recording_changes_nothing_for_code_written_for_blinker(
    signals: SignalRegistry,
) -> None:
    signal = signals.resolve("paid")

    async def answer(sender: object, **context: object) -> int:
        return 1

    signal.connect(answer)
    with record_events(signals=signals) as events:
        assert await signal.send_async(n=1) == [(answer, 1)]
        signal.disconnect(answer)
        assert signal.send(n=2) == []
    events.assert_emitted("paid", times=1, n=1)
    events.assert_emitted("paid", times=1, n=2)


def test_a_recorder_is_not_seen_by_the_code_under_test(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    signal = signals.resolve("paid")
    timing = TimingObserver()
    dispatcher.add_observer(timing)
    with record_events("paid", "*", signals=signals) as events:
        assert signals.subscriptions == signal.subscriptions == ()
        assert not signal.receivers
        assert not signal.has_receivers_for("me")
        assert list(signal.receivers_for("me")) == []
        dispatcher.emit("paid")
    events.assert_emitted("paid")
    assert [it.handler for it in timing.snapshot().handlers] == []


def test_what_send_has_called_has_handled_the_event(signals: SignalRegistry) -> None:
    signal = signals.resolve("paid")

    class Owner:
        def method(self) -> int:
            return 1

    owner = Owner()
    signal.subscribe(owner.method)
    with record_events(signals=signals) as events:
        assert signal.send("me") == [(owner.method, 1)]
    events.assert_handled_by(signal, owner.method)


@pytest.mark.parametrize("records", [record_events, fake_events])
def test_a_recorder_outlives_what_empties_the_registry(records: Any) -> None:
    with records() as events:
        clear_all_handlers()
        emit_event("user_logged_in", user_id=1)
        with madcrow_signals.isolated(empty=True):
            madcrow_signals.signal("order_placed")
            emit_event("order_placed", user_id=2)
            emit_event("user_logged_in", user_id=2)
        emit_event("user_logged_in", user_id=3)
    assert [it.context["user_id"] for it in events.emissions] == [1, 2, 2, 3]


def test_a_fake_that_is_left_open_ends_with_the_isolated_block_around_it() -> None:
    called: list[int] = []
    user_logged_in.subscribe(lambda: called.append(1))
    with madcrow_signals.isolated():
        events = fake_events().__enter__()
        emit_event("user_logged_in")
    assert not events.is_open
    emit_event("user_logged_in")
    assert called == [1]
    events.assert_emitted("user_logged_in", times=1)


def test_every_form_of_context_is_seen_alike(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    with record_events(signals=signals) as events:
        dispatcher.emit_typed("paid", GenericEventContext(event_type="paid", data={"n": 1}))
    events.assert_emitted("paid", n=1)


def test_an_event_of_another_thread_is_waited_for(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    with record_events(signals=signals) as events:
        timer = threading.Timer(0.05, dispatcher.emit, ["paid"], {"n": 1})
        timer.start()
        assert events.wait_for("paid", 5, n=1).event == "paid"
        assert events.wait_for("paid").context == {"n": 1}
        timer.join()


async def test_an_event_of_another_task_is_waited_for(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    async with record_events(signals=signals) as events:
        loop = asyncio.get_running_loop()
        loop.call_later(0.01, lambda: dispatcher.emit("paid", n=1))
        assert (await events.wait_for_async("paid", n=1)).event == "paid"
        with pytest.raises(AssertionError, match=r"within 0\.01 s"):
            await events.wait_for_async("paid", 0.01, n=2)


@pytest.mark.usefixtures("threads_switch_often")
def test_eight_threads_are_recorded_whole(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    def emit(thread: int) -> None:
        for number in range(100):
            dispatcher.emit("paid", thread=thread, number=number)

    with record_events("paid", "*", signals=signals) as events:
        threads = [threading.Thread(target=emit, args=(thread,)) for thread in range(8)]
        for thread in threads:
            thread.start()
        for number in range(100):
            events.wait_for("paid", thread=number % 8, number=number)
        for thread in threads:
            thread.join()
    events.assert_emitted("paid", times=800)
    for thread in range(8):
        mine = [it for it in events.emissions if it.context["thread"] == thread]
        assert [it.context["number"] for it in mine] == list(range(100))


def test_a_failing_assertion_of_where_is_the_tests_own(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    def where(paid: Any) -> bool:
        assert paid["amount"] == 4, "the amount is wrong"
        return True

    with record_events(signals=signals) as events:
        dispatcher.emit("paid", amount=3)
    with pytest.raises(AssertionError, match="the amount is wrong"):
        events.assert_emitted("paid", where=where)


def test_a_fake_calls_no_handler_and_records(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    called: list[str] = []
    signals.subscribe("paid", lambda: called.append("handler"))
    with fake_events(signals=signals) as outer:
        dispatcher.emit("paid")
        with fake_events("paid", signals=signals) as inner, record_events(signals=signals) as third:
            dispatcher.emit("paid")
            signals.signal("late")
            signals.subscribe("late", lambda: called.append("late"))
            dispatcher.emit("late")
        dispatcher.emit("paid")
    outer.assert_emitted("paid", times=3)
    outer.assert_emitted("late", times=1)
    inner.assert_emitted("paid", times=1)
    third.assert_emitted("late", times=1)
    assert called == []
    dispatcher.emit("paid")
    dispatcher.emit("late")
    assert called == ["handler", "late"]


def test_a_fake_of_one_event_leaves_the_others_alone(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    called: list[str] = []
    signals.subscribe("*", lambda sender, **context: called.append(str(sender)))
    for event in ("paid", "refunded"):
        signals.subscribe(event, lambda: called.append("own"), background=True)
    with fake_events("refun*", signals=signals) as events:
        dispatcher.emit("paid")
        dispatcher.emit("refunded")
        assert dispatcher.drain(5)
    events.assert_emitted("refunded")
    assert sorted(called) == ["own", "paid"]
    with pytest.raises(AssertionError, match="In a fake_events block handlers are not called"):
        events.assert_handled_by("refunded", called.append)


def test_a_fake_ends_for_events_that_were_forgotten_meanwhile() -> None:
    called: list[str] = []
    paid = madcrow_signals.signal("paid")
    paid.subscribe(lambda: called.append("handler"))
    dispatcher = EventDispatcher()
    with madcrow_signals.isolated(empty=True):
        madcrow_signals.signal("paid")
        with fake_events():
            with madcrow_signals.isolated(empty=True):
                pass
            dispatcher.emit("paid")
    dispatcher.emit("paid")
    assert called == ["handler"]


def test_a_name_is_heard_when_it_is_declared_anew(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    with record_events("paid", signals=signals) as events, fake_events("refunded", signals=signals):
        for name in ("paid", "refunded"):
            signals.pop(name)
            signals.signal(name)
        signals.subscribe("refunded", lambda: pytest.fail("it was called"))
        dispatcher.emit("paid")
        dispatcher.emit("refunded")
    events.assert_emitted("paid", times=1)


def test_a_recorder_is_told_to_nobody(signals: SignalRegistry, dispatcher: EventDispatcher) -> None:
    told: list[object] = []
    signal = signals.resolve("paid")
    connected = signal.receiver_connected
    connected.connect(lambda *_, **receiver: told.append(receiver), weak=False)
    with record_events("paid", signals=signals) as events:
        dispatcher.emit("paid")
    events.assert_emitted("paid")
    assert told == []


def test_failures_can_be_recorded_by_name(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    signals.subscribe("paid", lambda: 1 / 0)
    with record_events("handler_failed", signals=signals) as events:
        dispatcher.emit("paid")
    events.assert_emitted("handler_failed", times=1)
    with record_events("handler_failed", "*", signals=signals) as events:
        dispatcher.emit("paid")
    assert [it.event for it in events.emissions] == ["paid", "handler_failed"]


def test_a_failed_assertion_lists_the_first_hundred_emissions_and_the_beginning_of_long_values(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    signals.signal("paid")
    signals.signal("refunded")
    with record_events(signals=signals) as recorder:
        for number in range(103):
            dispatcher.emit("paid", number=number, note="n" * 100_000)
    with pytest.raises(AssertionError) as caught:
        recorder.assert_emitted("refunded")
    lines = str(caught.value).splitlines()
    assert lines[2].startswith("  paid(number=0, note='nnn")
    assert lines[-2].startswith("  paid(number=99, note='nnn")
    assert lines[-1] == "  ... and 3 more"
    assert max(map(len, lines)) < 1100
