"""Signals, and what they keep of blinker (N5)."""

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
    EventDispatcher,
    EventSignal,
    HandlerSignatureError,
    InvalidOptionError,
    LoginEventContext,
    SignalRegistry,
    SubscriptionConflictError,
    current_event,
)
from support.inside import table_of


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
def test_a_receiver_connected_to_all_and_subscribed_to_one_is_called_for_each(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    def receiver(sender: Any, **context: Any) -> None: ...

    signal.connect(receiver)
    signal.subscribe(receiver, sender="me")
    assert len(dispatcher.emit(signal, "me").results) == 2
    assert len(dispatcher.emit(signal, "you").results) == 1


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
def test_muted_decorates_a_function_that_is_called_again_and_again(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    @signal.muted()
    def emit_in_silence() -> tuple[Any, ...]:
        return dispatcher.emit(signal).results

    signal.subscribe(lambda: "heard")
    assert [emit_in_silence(), emit_in_silence()] == [(), ()]
    assert not signal.is_muted


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
    assert table_of(signal).plans.everyone is not None


@pytest.mark.guarantee("E1")
def test_a_signal_reads_as_its_name(signal: EventSignal[Any]) -> None:
    assert str(signal) == "thing_happened"
    assert "thing" in str(signal)


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


@pytest.mark.guarantee("N5")
def test_tests_that_clear_a_signal_as_blinkers_do_leave_it_without_handlers(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    signal.connect(lambda sender: "connected", weak=False)
    signal.connect(lambda sender: "for one", sender=signal, weak=False)
    signal.subscribe(lambda: "subscribed")
    signals.subscribe("*", lambda: "by pattern")
    signal._clear_state()
    signal._clear_state()
    assert not signal.receivers
    assert signal.send(signal) == []
    assert dispatcher.emit(signal).results == ()
    signal.subscribe(lambda: "anew")
    assert [value for _, value in signal.send()] == ["anew"]
