"""Signals, the registry, and what they keep of blinker (N2, N5)."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import threading
from typing import Any

import blinker
import pytest

from madcrow_events import (
    ANY,
    BaseEventContext,
    EventDispatcher,
    EventSignal,
    HandlerSignatureError,
    InvalidOptionError,
    LoginEventContext,
    LogoutEventContext,
    SignalConflictError,
    SignalRegistry,
    SubscriptionConflictError,
    current_event,
    madcrow_signals,
)


class OrderPlaced(BaseEventContext):
    order_id: int


@pytest.mark.guarantee("N2")
def test_declaring_again_returns_the_signal(signals: SignalRegistry) -> None:
    declared = signals.signal("order_placed", "An order came in.", context=OrderPlaced)
    assert declared.context_model is OrderPlaced
    assert declared.__doc__ == declared.doc == "An order came in."
    assert signals.signal("order_placed", context=OrderPlaced) is declared
    assert signals.signal("order_placed") is declared
    assert len(signals) == 1
    assert repr(signals) == "<SignalRegistry of 1 events>"


@pytest.mark.guarantee("N2")
@pytest.mark.parametrize("first", [OrderPlaced, None])
def test_declaring_again_with_another_model_is_a_conflict(
    signals: SignalRegistry, first: Any
) -> None:
    signal = signals.signal("order_placed", context=first)
    with pytest.raises(SignalConflictError, match="declare it once, with its model") as caught:
        signals.signal("order-placed", context=LogoutEventContext)
    assert caught.value.event == "order_placed"
    assert caught.value.declared is first
    assert caught.value.requested is LogoutEventContext
    assert signal.context_model is first


@pytest.mark.guarantee("N2")
def test_a_signal_without_a_model_accepts_any_context(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    signals.signal("anything")
    for context in (OrderPlaced(order_id=1), BaseEventContext()):
        assert dispatcher.emit_typed("anything", context).context is context


def test_signals_are_not_assigned_but_declared(signals: SignalRegistry) -> None:
    named = blinker.NamedSignal("a")
    for assign in (
        lambda: signals.__setitem__("a", named),
        lambda: signals.setdefault("a", named),
        lambda: signals.update(a=named),
        lambda: signals.__ior__({"a": named}),
    ):
        with pytest.raises(TypeError, match=r"signals\.signal\('event_name'\)"):
            assign()
    assert signals.get("a") is None
    assert signals.get("a", 3) == 3
    assert 3 not in signals


@pytest.mark.guarantee("N1")
def test_events_are_forgotten_by_name_in_any_spelling(signals: SignalRegistry) -> None:
    for name in ("first-event", "second_event"):
        signals.signal(name)
    del signals["first_event"]
    assert signals.pop("second-event").name == "second_event"
    assert signals.pop("second-event", None) is None
    assert not signals


@pytest.mark.guarantee("N5")
def test_signals_and_registries_are_blinkers(
    signal: EventSignal[Any], signals: SignalRegistry
) -> None:
    assert isinstance(signal, blinker.NamedSignal)
    assert isinstance(signals, blinker.Namespace)
    assert signal.name == "thing_happened"
    assert "thing_happened" in repr(signal)
    assert not hasattr(signal, "_by_sender")


@pytest.mark.guarantee("N5")
def test_a_connected_receiver_is_called_as_blinker_calls_it(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    def receiver(email: Any, **context: Any) -> Any:
        return email, context

    assert signal.connect(receiver) is receiver
    assert signal.send("me", color="red") == [(receiver, ("me", {"color": "red"}))]
    (result,) = dispatcher.emit(signal, "me", color="red").results
    assert result == (receiver, ("me", {"color": "red"}))


@pytest.mark.guarantee("N5")
def test_connect_holds_weakly_unless_told_otherwise(signal: EventSignal[Any]) -> None:
    signal.connect(lambda sender: "gone")
    signal.connect(lambda sender: "here", weak=False)
    assert [value for _, value in signal.send()] == ["here"]


@pytest.mark.guarantee("N5")
def test_connecting_again_takes_the_newer_hold(signal: EventSignal[Any]) -> None:
    def receiver(sender: Any) -> str:
        return "here"

    signal.connect(receiver)
    (weakly,) = signal.subscriptions
    signal.connect(receiver, weak=False)
    signal.connect(receiver, weak=False)
    assert not weakly.active
    del receiver
    gc.collect()
    assert [value for _, value in signal.send()] == ["here"]


@pytest.mark.guarantee("N5")
def test_what_cannot_be_connected_is_refused(signal: EventSignal[Any]) -> None:
    class Stiff:
        __slots__ = ()

        def __call__(self, sender: Any) -> None: ...

    with pytest.raises(HandlerSignatureError, match="connect a function"):
        signal.connect("receiver")  # type: ignore[type-var]
    with pytest.raises(InvalidOptionError, match="cannot be held weakly"):
        signal.connect(Stiff())
    handler = signal.subscribe(lambda sender, **context: None).handler
    with pytest.raises(SubscriptionConflictError):
        signal.connect(handler)


@pytest.mark.guarantee("N5")
def test_connect_via_and_senders_work_with_blinkers_any_and_ours(signal: EventSignal[Any]) -> None:
    @signal.connect_via("me")
    def mine(sender: Any) -> str:
        return "mine"

    @signal.connect_via(blinker.ANY)
    def everyones(sender: Any) -> str:
        return "everyones"

    signal.connect(mine, sender="you", weak=False)
    assert [value for _, value in signal.send("me")] == ["mine", "everyones"]
    assert [value for _, value in signal.send("them")] == ["everyones"]
    assert signal.has_receivers_for("them")
    signal.disconnect(everyones, blinker.ANY)
    assert not signal.has_receivers_for("them")
    assert not signal.has_receivers_for(ANY)
    assert not signal.has_receivers_for(blinker.ANY)
    assert signal.has_receivers_for("you")
    signal.disconnect(mine, sender="you")
    assert not signal.has_receivers_for("you")
    assert list(signal.receivers_for("me")) == [mine]
    assert list(signal.receivers.values()) == [mine]


@pytest.mark.guarantee("N5")
def test_a_receiver_connected_to_all_and_to_one_is_called_once(signal: EventSignal[Any]) -> None:
    def receiver(sender: Any) -> None: ...

    signal.connect(receiver)
    signal.connect(receiver, sender="me")
    assert len(signal.send("me")) == 1
    signal.disconnect(receiver)
    assert not signal.receivers


@pytest.mark.guarantee("N5")
def test_receivers_for_skips_the_dead(signal: EventSignal[Any]) -> None:
    def receiver(sender: Any) -> None: ...

    signal.connect(print, weak=False)
    signal.connect(receiver)
    signal.connect(len, weak=False)
    iterator = signal.receivers_for(None)
    assert next(iterator) is print
    del receiver
    assert list(iterator) == [len]
    assert list(signal.receivers.values()) == [print, len]


@pytest.mark.guarantee("N5")
def test_connecting_and_disconnecting_is_told(signal: EventSignal[Any]) -> None:
    told: list[Any] = []

    def on_connected(sender: Any, /, **arguments: Any) -> None:
        told.append(("connected", sender, arguments))

    def on_disconnected(sender: Any, /, **arguments: Any) -> None:
        told.append(("disconnected", sender, arguments))

    signal.receiver_connected.connect(on_connected)
    signal.receiver_disconnected.connect(on_disconnected)
    assert signal.receiver_connected is signal.receiver_connected
    assert signal.receiver_disconnected is signal.receiver_disconnected

    def receiver(sender: Any, **context: Any) -> None: ...

    signal.connect(receiver, sender="me")
    signal.disconnect(receiver, sender="me")
    signal.subscribe(receiver)
    signal.subscribe(receiver)
    signal.disconnect(receiver)
    assert told == [
        ("connected", signal, {"receiver": receiver, "sender": "me", "weak": True}),
        ("disconnected", signal, {"receiver": receiver, "sender": "me"}),
        ("connected", signal, {"receiver": receiver, "sender": blinker.ANY, "weak": False}),
        ("disconnected", signal, {"receiver": receiver, "sender": blinker.ANY}),
    ]


@pytest.mark.guarantee("N5")
def test_send_reaches_subscribed_handlers_in_every_shape_and_with_their_options(
    signals: SignalRegistry,
) -> None:
    signal = signals.signal("user_logged_in", context=LoginEventContext)

    def typed(context: LoginEventContext) -> str:
        return context.email

    signals.subscribe("user_logged_in", lambda email: "by name " + email)
    signal.subscribe(typed, priority=1)
    signal.subscribe(lambda: "once", once=True)
    signal.subscribe(lambda: "never", when=lambda context: False)
    signal.connect(lambda sender, **context: sender, weak=False)
    values = [value for _, value in signal.send(None, user_id=1, email="a")]
    assert values == ["a", "by name a", "once", None]
    assert len(signal.send(None, user_id=1, email="a")) == 3


@pytest.mark.guarantee("N5")
def test_send_raises_at_the_first_failure(signal: EventSignal[Any]) -> None:
    calls: list[str] = []

    def failing() -> None:
        raise ZeroDivisionError

    signal.subscribe(lambda: calls.append("before"))
    signal.subscribe(failing)
    signal.subscribe(lambda: calls.append("after"))
    with pytest.raises(ZeroDivisionError):
        signal.send()
    assert calls == ["before"]


@pytest.mark.guarantee("N5")
def test_async_receivers_need_send_async_or_a_wrapper(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    class Callable:
        async def __call__(self, sender: Any, **context: Any) -> str:
            return "object"

    async def receiver(sender: Any, **context: Any) -> str:
        return "function"

    kept = Callable()
    signal.connect(receiver)
    signal.connect(kept)
    assert [value for _, value in asyncio.run(signal.send_async("me", a=1))] == [
        "function",
        "object",
    ]
    with pytest.raises(RuntimeError, match="use send_async, or give _async_wrapper"):
        signal.send("me")

    def run(handler: Any) -> Any:
        return lambda *arguments, **context: asyncio.run(handler(*arguments, **context))

    assert [value for _, value in signal.send("me", _async_wrapper=run)] == ["function", "object"]
    emission = EventDispatcher(signals).emit(signal, a=1)
    assert emission.wait(10)
    assert [result.value for result in emission.results] == ["function", "object"]


@pytest.mark.guarantee("N5")
def test_send_async_needs_a_wrapper_for_plain_handlers_of_any_shape(
    signals: SignalRegistry,
) -> None:
    signal = signals.signal("user_logged_in", context=LoginEventContext)

    def typed(context: LoginEventContext) -> str:
        return context.email

    def receiver(sender: Any, **context: Any) -> str:
        return "receiver"

    signal.subscribe(typed)
    signal.connect(receiver)
    signal.subscribe(lambda: "never", when=lambda context: False)

    def wrap(handler: Any) -> Any:
        async def called(*arguments: Any, **context: Any) -> Any:
            return handler(*arguments, **context)

        return called

    with pytest.raises(RuntimeError, match="use send, or give _sync_wrapper"):
        asyncio.run(signal.send_async(None, user_id=1, email="a"))
    results = asyncio.run(signal.send_async(None, _sync_wrapper=wrap, user_id=1, email="a"))
    assert results == [(typed, "a"), (receiver, "receiver")]


@pytest.mark.guarantee("N5")
def test_connected_to_leaves_an_earlier_connection_alone(signal: EventSignal[Any]) -> None:
    def receiver(sender: Any) -> None: ...

    with signal.connected_to(receiver):
        assert len(signal.send()) == 1
    assert not signal.send()
    signal.connect(receiver)
    with signal.connected_to(receiver), signal.connected_to(receiver, sender="me"):
        assert len(signal.send("me")) == 1
    assert len(signal.send()) == 1
    assert len(signal.subscriptions) == 1
    signal.disconnect(receiver)
    signal.connect(receiver, sender="me")
    with signal.connected_to(receiver):
        assert len(signal.send("you")) == 1
    assert len(signal.send("me")) == 1
    assert len(signal.send("you")) == 0
    with signal.connected_to(receiver, sender="you"):
        signal.disconnect(receiver)
    assert not signal.receivers

    def refuse(sender: Any, /, **arguments: Any) -> None:
        signal.disconnect(arguments["receiver"])

    signal.receiver_connected.connect(refuse)
    with signal.connected_to(receiver):
        assert not signal.receivers


@pytest.mark.guarantee("N5")
def test_muted_nests_and_mutes_send_and_emit(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    signal.subscribe(lambda: "heard")
    dispatcher.emit(signal)
    with signal.muted():
        with signal.muted():
            assert signal.is_muted
        assert signal.is_muted
        assert signal.send() == []
        assert dispatcher.emit(signal).results == ()
        assert len(list(signal.receivers_for(None))) == 1
    assert not signal.is_muted
    assert len(signal.send()) == 1
    assert len(dispatcher.emit(signal).results) == 1


@pytest.mark.guarantee("N5")
def test_muted_is_bound_to_the_context_that_muted(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    signal.subscribe(lambda: "heard")
    heard: list[int] = []

    def elsewhere() -> None:
        heard.append(len(dispatcher.emit(signal).results))

    with signal.muted():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        contextvars.Context().run(elsewhere)
        contextvars.copy_context().run(elsewhere)
    assert heard == [1, 1, 0]


@pytest.mark.guarantee("N5")
def test_a_mute_ends_with_its_block_in_contexts_that_inherited_it(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    signal.subscribe(lambda: "heard")
    with signal.muted():
        inherited = contextvars.copy_context()
        assert inherited.run(lambda: signal.is_muted)
    assert not inherited.run(lambda: signal.is_muted)
    assert len(inherited.run(dispatcher.emit, signal).results) == 1
    with signal.muted():
        child = contextvars.copy_context()
        inner = signal.muted()
        child.run(inner.__enter__)
    assert not signal.is_muted
    assert child.run(lambda: signal.is_muted)
    assert child.run(dispatcher.emit, signal).results == ()
    child.run(inner.__exit__, None, None, None)
    assert len(child.run(dispatcher.emit, signal).results) == 1


@pytest.mark.guarantee("N6")
def test_emissions_read_a_plan_without_the_lock_again_after_a_mute(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    signal.subscribe(lambda: "heard")
    with signal.muted():
        contextvars.Context().run(dispatcher.emit, signal)
    dispatcher.emit(signal)
    assert signal._table.plans.everyone is not None


@pytest.mark.guarantee("E1")
def test_a_signal_reads_as_its_name(signal: EventSignal[Any]) -> None:
    assert str(signal) == "thing_happened"
    assert "thing" in str(signal)


def test_isolated_restores_events_handlers_and_patterns(signals: SignalRegistry) -> None:
    calls: list[str] = []
    kept = signals.signal("kept")
    before = kept.subscribe(lambda: calls.append("before"), once=True)
    pattern = signals.subscribe("k*", lambda: calls.append("pattern"))
    emit = EventDispatcher(signals).emit
    with signals.isolated() as same:
        assert same is signals
        assert signals["kept"] is kept
        emit("kept")
        pattern.cancel()
        forgotten = signals.signal("added").subscribe(lambda: None)
        during = kept.subscribe(lambda: calls.append("during"))
        signals.subscribe("a*", lambda: None)
        emit("kept")
        assert calls == ["before", "pattern", "during"]
    assert "added" not in signals
    assert signals["kept"] is kept
    assert before.active
    assert pattern.active
    assert not during.active
    assert not forgotten.active
    assert len(kept.subscriptions) == 2
    calls.clear()
    emit("kept")
    emit("kept")
    assert calls == ["before", "pattern", "pattern"]
    assert signals.signal("k_later").subscriptions
    pattern.cancel()
    assert not signals["k_later"].subscriptions
    assert not kept.subscriptions


def test_isolated_empty_starts_with_the_built_in_events_only(signals: SignalRegistry) -> None:
    madcrow_signals.signal("mine").subscribe(lambda: None)
    with madcrow_signals.isolated(empty=True):
        assert len(madcrow_signals) == 13
        assert "mine" not in madcrow_signals
    assert madcrow_signals["mine"].subscriptions
    mine = signals.signal("mine")
    mine.subscribe(lambda: None)
    with signals.isolated(empty=True):
        assert len(signals) == 0
        assert not mine.subscriptions
        assert signals.signal("mine") is mine, "who holds the signal must not part from its name"
        assert signals.signal("mine", context=None) is mine
        signals.pop("mine")
        assert signals.signal("mine", context=OrderPlaced) is not mine
    assert signals["mine"] is mine
    assert len(mine.subscriptions) == 1


def test_isolated_restores_the_default_dispatcher() -> None:
    from madcrow_events import get_event_dispatcher, set_event_dispatcher

    default = get_event_dispatcher()
    with madcrow_signals.isolated():
        assert get_event_dispatcher() is default
        set_event_dispatcher(EventDispatcher(on_error="raise"))
    assert get_event_dispatcher() is default
    with madcrow_signals.isolated(empty=True):
        assert get_event_dispatcher() is not default
    assert get_event_dispatcher() is default


@pytest.mark.guarantee("F6")
def test_isolated_runs_no_finalizer_under_its_lock(signals: SignalRegistry) -> None:
    finished: list[bool] = []

    class Handler:
        def __call__(self) -> None: ...

        def __del__(self) -> None:
            thread = threading.Thread(target=lambda: signals.signal("from_a_finalizer"))
            thread.start()
            thread.join(timeout=5)
            finished.append(not thread.is_alive())

    signals.signal("kept")
    with signals.isolated():
        signals.subscribe("kept", Handler())
        signals.subscribe("k*", Handler())
    gc.collect()
    assert finished == [True, True]


@pytest.mark.guarantee("N4")
def test_patterns_do_not_remember_events_that_an_isolated_block_forgot(
    signals: SignalRegistry,
) -> None:
    pattern = signals.subscribe("*", lambda: None)
    for number in range(5):
        with signals.isolated():
            signals.signal(f"event_{number}")
    gc.collect()
    assert len(pattern._children) == 0


def test_isolated_forgets_what_died_meanwhile(signals: SignalRegistry) -> None:
    class Owner:
        def handle(self, sender: Any, **context: Any) -> None: ...

    signal = signals.signal("kept")
    owner = Owner()
    signal.subscribe(owner.handle)
    with signals.isolated():
        del owner
        gc.collect()
    assert not signal.subscriptions
    assert not signal._table._by_sender


def test_isolated_forgets_a_pattern_that_died_meanwhile(signals: SignalRegistry) -> None:
    class Owner:
        def handle(self, sender: Any, **context: Any) -> None: ...

    owner = Owner()
    signals.subscribe("*", owner.handle)
    with signals.isolated():
        del owner
        gc.collect()
    assert not signals._patterns._by_order
    assert not signals._patterns._by_key


def test_a_send_async_that_is_never_finished_leaves_no_error(signal: EventSignal[Any]) -> None:
    class Never:
        def __await__(self) -> Any:
            yield

    async def receiver(sender: Any) -> None:
        await Never()

    signal.connect(receiver)
    coroutine = signal.send_async()
    contextvars.copy_context().run(coroutine.send, None)
    coroutine.close()
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
    assert current_event() is None


def test_isolated_blocks_end_in_the_reverse_order_of_their_start(signals: SignalRegistry) -> None:
    outer, inner = signals.isolated(), signals.isolated()
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(RuntimeError, match="reverse order"):
        outer.__exit__(None, None, None)
    with pytest.raises(RuntimeError, match="reverse order"):
        inner.__exit__(None, None, None)
    with signals.isolated():
        pass


def test_isolated_restores_after_an_error(signals: SignalRegistry) -> None:
    with pytest.raises(ZeroDivisionError), signals.isolated():
        signals.signal("added")
        raise ZeroDivisionError
    assert not signals
