"""The traps of the peers that this package does not inherit: one test each, for sync emission.

Each test fails on the peer that is named in its docstring.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import subprocess
import sys
import sysconfig
import threading
from typing import Any

import pytest

from madcrow_events import EventDispatcher, EventSignal, LoginEventContext, SignalRegistry
from support.inside import senders_of, stale_of, table_of


class Sender:
    """A sender that can be held weakly."""


@pytest.mark.guarantee("F1")
def test_one_failing_handler_does_not_stop_its_siblings(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """It does in blinker, psygnal, pyee and Django's `send`."""
    calls: list[int] = []
    signal.subscribe(lambda: 1 / 0)
    signal.subscribe(lambda: calls.append(1))
    dispatcher.emit(signal)
    assert calls == [1]


@pytest.mark.guarantee("N5")
def test_handlers_are_called_in_the_order_of_their_connection(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Blinker scrambles it."""
    order: list[int] = []
    receivers = [lambda sender, number=number: order.append(number) for number in range(50)]
    for receiver in receivers:
        signal.connect(receiver)
    signal.send()
    assert order == list(range(50))
    order.clear()
    dispatcher.emit(signal)
    assert order == list(range(50))


@pytest.mark.guarantee("L1")
def test_a_lambda_a_closure_and_a_partial_are_not_lost(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """They are, in silence, in blinker, Django, PyDispatcher and PyPubSub."""
    calls: list[Any] = []
    signal.subscribe(lambda: calls.append("lambda"))
    signal.subscribe(functools.partial(calls.append))
    gc.collect()
    dispatcher.emit(signal)
    assert calls == ["lambda", signal]


@pytest.mark.guarantee("L2")
def test_a_receiver_of_sender_zero_does_not_hear_everyone(signal: EventSignal[Any]) -> None:
    """In blinker `connect(sender=0)` does."""
    calls: list[Any] = []
    signal.connect(calls.append, sender=0, weak=False)
    signal.send("somebody")
    signal.send(False)
    signal.send(0.0)
    assert calls == []
    signal.send(0)
    assert calls == [0]


@pytest.mark.guarantee("N5")
def test_a_nested_muted_does_not_unmute_the_outer_one(signal: EventSignal[Any]) -> None:
    """In blinker it does."""
    calls: list[Any] = []
    signal.connect(calls.append, weak=False)
    with signal.muted():
        with signal.muted():
            pass
        signal.send("inside")
    assert calls == []


@pytest.mark.guarantee("N5")
def test_muted_does_not_mute_other_threads(signal: EventSignal[Any]) -> None:
    """In blinker it does."""
    calls: list[Any] = []
    signal.connect(calls.append, weak=False)
    with signal.muted():
        thread = threading.Thread(target=signal.send, args=("elsewhere",))
        thread.start()
        thread.join()
    assert calls == ["elsewhere"]


@pytest.mark.guarantee("N5")
def test_connected_to_does_not_remove_a_permanent_connection(signal: EventSignal[Any]) -> None:
    """In blinker it does."""
    calls: list[Any] = []
    signal.connect(calls.append, weak=False)
    with signal.connected_to(calls.append):
        pass
    signal.send("after")
    assert calls == ["after"]


@pytest.mark.guarantee("N5")
def test_an_object_with_async_call_is_awaited(signal: EventSignal[Any]) -> None:
    """In blinker it never is."""

    class Receiver:
        async def __call__(self, sender: Any) -> str:
            await asyncio.sleep(0)
            return "awaited"

    receiver = Receiver()
    signal.connect(receiver)
    assert asyncio.run(signal.send_async()) == [(receiver, "awaited")]


@pytest.mark.guarantee("L2")
def test_bookkeeping_for_senders_does_not_grow(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """In blinker it grows for ever."""

    def receiver(sender: Any) -> None: ...

    for number in range(1000):
        sender = Sender()
        signal.connect(receiver, sender=sender)
        signal.send(sender)
        signal.connect(receiver, sender=number)
        signal.send(number)
        signal.disconnect(receiver, sender=number)
        signal.has_receivers_for(("nobody", number))
        dispatcher.emit(signal, ("nobody", number))
    del sender
    assert not senders_of(signal)
    assert not stale_of(signal)
    assert len(table_of(signal).plans.by_sender) <= 1


@pytest.mark.guarantee("N6")
def test_sender_churn_from_several_threads_raises_nothing(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Blinker raises `RuntimeError` or `KeyError`."""
    errors: list[BaseException] = []
    calls: list[Any] = []
    interval = sys.getswitchinterval()

    def churn(mine: int) -> None:
        try:
            for number in range(150):
                sender = Sender()
                with signal.subscribe(calls.append, sender=sender):
                    dispatcher.emit(signal, sender)
                signal.connect(calls.append, sender=(mine, number), weak=False)
                signal.send((mine, number))
                signal.disconnect(calls.append, sender=(mine, number))
        except BaseException as error:
            errors.append(error)

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=churn, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert errors == []
    assert len(calls) == 4 * 150 * 2
    assert not senders_of(signal)


@pytest.mark.guarantee("L2")
def test_a_dead_senders_id_does_not_deliver_to_its_successor(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """In blinker, Django 5 and PyDispatcher it can."""
    calls: list[Any] = []
    for _ in range(100):
        sender = Sender()
        signal.subscribe(lambda: calls.append(1), sender=sender)
        del sender
        dispatcher.emit(signal, Sender())
    assert calls == []


FORKING = """
import os, threading
from madcrow_events import EventDispatcher, SignalRegistry

signals = SignalRegistry()
signal = signals.signal("thing_happened")
dispatcher = EventDispatcher(signals)
stop = threading.Event()

def emit():
    while not stop.is_set():
        with signal.subscribe(lambda: None):
            dispatcher.emit(signal)

thread = threading.Thread(target=emit)
thread.start()
for _ in range(50):
    child = os.fork()
    if child == 0:
        signal.subscribe(lambda: None)
        os._exit(0 if dispatcher.emit(signal).ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
stop.set()
thread.join()
print("no child hung")
"""


@pytest.mark.guarantee("N6")
@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="the child may hang in Python itself, see docs/reference/free-threading.md",
)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_while_another_thread_emits_does_not_hang_the_child() -> None:
    """It does in psygnal. In a process of its own: a coverage tracer's lock is not fork-safe."""
    environment = {key: value for key, value in os.environ.items() if "COV" not in key}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert ran.stdout == "no child hung\n", ran.stderr


@pytest.mark.guarantee("G1")
def test_no_secret_is_in_a_validation_error_or_in_a_failures_log_line(
    signals: SignalRegistry, dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    """They are in psygnal's errors, which show the arguments, and in bubus'."""
    signal = signals.signal("user_logged_in", context=LoginEventContext)

    def handler(context: LoginEventContext) -> None: ...

    signal.subscribe(handler)
    emission = dispatcher.emit(signal, user_id=1, email=["hunter2"], password="hunter2")
    assert len(emission.failures) == 1
    assert "hunter2" not in str(emission.failures[0].exception)
    assert "hunter2" not in caplog.text


@pytest.mark.guarantee("G1")
def test_a_newline_in_an_exception_forges_no_log_line(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    """In Django and bubus it does."""

    def handler() -> None:
        raise ValueError("x\nERROR root all your base")

    signal.subscribe(handler)
    dispatcher.emit(signal)
    assert not any(line.startswith("ERROR root") for line in caplog.text.splitlines())
    assert "all your base" in caplog.text
