"""What cannot be handled ends where somebody sees it, and blocks nobody but its key."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import field_validator
from sqlalchemy import text

from madcrow_events import (
    BaseEventContext,
    EventDispatcher,
    HandlerFailedEventContext,
    SignalRegistry,
)
from madcrow_events.outbox import Outbox, Retry, Worker
from madcrow_events.testing import drain_outbox
from support.outboxes import Order, emit, keyed_outbox, lines_of, sqlite_engine, wait_for

TWICE = Retry(attempts=2, wait_initial=0, wait_jitter=0)


@pytest.fixture
def engine(tmp_path):
    engine = sqlite_engine(tmp_path)
    yield engine
    engine.dispose()


@pytest.fixture
def outbox(engine):
    outbox = keyed_outbox()
    outbox.metadata.create_all(engine)
    return outbox


def change(engine, statement):
    with engine.begin() as connection:
        connection.execute(text(statement))


@pytest.mark.parametrize("payload", ["", "{", "[1]", "null", "\x00", '"text"'])
def test_a_payload_that_is_no_json_object_is_dead_at_once(outbox, engine, caplog, payload):
    """No attempt can mend it, so there is one; the other key goes on."""
    handled = []
    outbox.on("order", id="mail", retry=TWICE)(lambda number: handled.append(number))
    emit(outbox, engine, Order(number=1, customer="a"), Order(number=2, customer="b"))
    with engine.begin() as connection:
        connection.execute(
            text("update madcrow_event set payload = :payload where seq = 1"), {"payload": payload}
        )
    assert drain_outbox(outbox, engine) == (1, 1, 0)
    assert handled == [2]
    (dead,) = outbox.inspect(engine).dead()
    assert (dead.id, dead.attempts, dead.error_type) == ("1-1", 1, "MalformedPayloadError")
    assert lines_of(caplog) == [
        (
            "delivery 1-1 of order to mail is dead after 1 attempts: MalformedPayloadError: "
            "what is stored of order is no JSON object: discard the delivery"
        )
    ]


def test_a_model_that_refuses_is_retried_then_dead(engine, caplog):
    """The next version of the code may read it; the line shows no value."""

    class Strict(Order):
        @field_validator("number")
        @classmethod
        def _is_even(cls, number: int) -> int:
            if number % 2 and not lenient:
                raise ValueError(f"{number} is odd")
            return number

    lenient = [True]
    signals = SignalRegistry()
    signals.signal("order", context=Strict, key="customer")
    outbox = Outbox("/shop", signals=signals)
    outbox.metadata.create_all(engine)
    handled = []
    outbox.on("order", id="mail", retry=TWICE)(lambda number: handled.append(number))
    emit(outbox, engine, Strict(number=1357), Strict(number=2, customer="b"))
    lenient.clear()
    assert drain_outbox(outbox, engine, until_dead=True) == (1, 1, 1)
    assert handled == [2]
    assert "1357" not in caplog.text
    assert outbox.inspect(engine).dead()[0].error_type == "UnreadablePayloadError"
    lenient.append(True)
    outbox.inspect(engine).retry("1-1")
    assert drain_outbox(outbox, engine) == (1, 0, 0)


def test_a_version_from_the_future_waits_and_is_reported(outbox, engine):
    """The worker of the older code leaves it alone, without an attempt."""
    handled = []
    outbox.on("order", id="mail")(lambda number: handled.append(number))
    emit(outbox, engine, Order(number=1, customer="a"), Order(number=2, customer="b"))
    change(engine, "update madcrow_event set version = 2 where seq = 1")
    assert drain_outbox(outbox, engine) == (1, 0, 0)
    (mail,) = outbox.inspect(engine).status().handlers
    assert (mail.unknown, mail.due, mail.dead) == (1, 1, 0)
    assert outbox.inspect(engine).show("1-1").deliveries == 0


def test_a_version_that_no_upcast_raises_waits_and_is_reported(engine, caplog):
    """It is looked at again every minute, and blocks its key only."""

    class Newer(Order):
        event_version: ClassVar[int] = 3

    signals = SignalRegistry()
    signals.signal("order", context=Newer, key="customer")
    outbox = Outbox("/shop", signals=signals)
    outbox.metadata.create_all(engine)
    handled = []
    outbox.on("order", id="mail")(lambda number: handled.append(number))
    emit(outbox, engine, Newer(number=1, customer="a"), Newer(number=2, customer="b"))
    change(engine, "update madcrow_event set version = 1 where seq = 1")
    with Worker(outbox, engine):
        deadline = time.monotonic() + 10
        while handled != [2] or not lines_of(caplog):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert outbox.inspect(engine).show("1-1").attempts == 0
    assert lines_of(caplog) == [
        (
            "delivery 1-1 of order to mail is tried again in 60 seconds, after 0 attempts: "
            "UnknownVersionError: order is stored in version 1, and nothing raises version 1: "
            "declare a function with @outbox.upcast(order, from_version=1)"
        )
    ]


def test_deliveries_of_a_handler_that_is_gone_wait_until_it_is_retired(outbox, engine):
    """They are counted under its name, and are gone with it."""
    decorate = outbox.on("order", id="old-mail")
    decorate(lambda number: 1 / 0)
    emit(outbox, engine, Order(number=1))
    drain_outbox(outbox, engine)
    handled = []
    newer = keyed_outbox()
    newer.on("order", id="mail")(lambda number: handled.append(number))
    inspection = newer.inspect(engine)
    emit(newer, engine, Order(number=2))
    drain_outbox(newer, engine)
    assert handled == [2]
    assert {it.name: it.parked + it.due + it.delayed for it in inspection.status().handlers} == {
        "mail": 0,
        "old-mail": 2,
    }
    assert inspection.retire("old-mail") == 2
    emit(newer, engine, Order(number=3))
    assert drain_outbox(newer, engine) == (1, 0, 0)


def test_a_payload_of_ten_megabytes_is_handled(engine):
    """It takes the same way as any other."""

    class Document(BaseEventContext):
        text: str

    signals = SignalRegistry()
    signals.signal("document", context=Document)
    outbox = Outbox("/shop", signals=signals)
    outbox.metadata.create_all(engine)
    sizes = []
    outbox.on("document", id="store")(lambda text: sizes.append(len(text)))
    emit(outbox, engine, Document(text="x" * 10_000_000))
    assert drain_outbox(outbox, engine) == (1, 0, 0)
    assert sizes == [10_000_000]


@pytest.mark.parametrize("is_async", [False, True])
def test_an_exit_of_a_handler_is_a_failure(outbox, engine, is_async):
    """It does not end the worker, and is retried as any other failure."""
    handled = []

    def leave(context: Order) -> None:
        if context.number == 1:
            sys.exit("no more")
        handled.append(context.number)

    async def leave_async(context: Order) -> None:
        leave(context)

    outbox.on("order", id="mail", retry=TWICE)(leave_async if is_async else leave)
    emit(outbox, engine, Order(number=1, customer="a"), Order(number=2, customer="b"))
    with Worker(outbox, engine):
        deadline = time.monotonic() + 10
        while handled != [2] or not outbox.inspect(engine).dead():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert outbox.inspect(engine).dead()[0].error_type == "SystemExit"


def test_an_async_handler_that_hangs_is_cancelled_after_its_timeout(outbox, engine):
    """Its delivery is retried, and then dead."""

    @outbox.on("order", id="mail", retry=TWICE, timeout=0.05)
    async def hang(context: Order) -> None:
        await asyncio.sleep(3600)

    emit(outbox, engine, Order(number=1))
    assert drain_outbox(outbox, engine, until_dead=True) == (0, 1, 1)
    assert outbox.inspect(engine).dead()[0].error_type == "HandlerTimeoutError"


def test_a_plain_handler_that_hangs_loses_its_thread_after_its_timeout(outbox, engine, caplog):
    """Another thread takes its place; the one that hangs cannot settle when it comes back."""
    released, handled = threading.Event(), []

    @outbox.on("order", id="mail", retry=TWICE, timeout=0.1)
    def hang(context: Order) -> None:
        if context.customer == "a":
            released.wait(20)
        handled.append(context.number)

    emit(outbox, engine, Order(number=1, customer="a"), Order(number=2, customer="b"))
    with Worker(outbox, engine, concurrency=1):
        deadline = time.monotonic() + 10
        while not outbox.inspect(engine).dead():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert handled == [2]
    released.set()
    assert outbox.inspect(engine).dead()[0].error_type == "HandlerTimeoutError"
    assert lines_of(caplog)[-1] == (
        "delivery 1-1 of order to mail is dead after 2 attempts: HandlerTimeoutError"
    )


def test_a_plain_handler_without_a_timeout_that_hangs_is_named(outbox, engine, caplog):
    """The worker keeps its lease, and goes on with other deliveries."""
    released, handled = threading.Event(), []

    @outbox.on("order", id="mail")
    def hang(context: Order) -> None:
        if context.customer == "a":
            released.wait(20)
        handled.append(context.number)

    emit(outbox, engine, Order(number=1, customer="a"), Order(number=2, customer="b"))
    with Worker(outbox, engine, lease=0.3, poll=0.05):
        deadline = time.monotonic() + 10
        while not lines_of(caplog):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert handled == [2]
        released.set()
    assert handled == [2, 1]
    assert lines_of(caplog) == ["the handler mail has been handling order for 0.3 seconds or more"]


@pytest.mark.once
@pytest.mark.skipif(sys.platform == "win32", reason="the worker is killed by its handler")
def test_a_handler_that_kills_its_process_each_time_is_dead_in_the_end(outbox, engine, tmp_path):
    """Its lease ends, others take over, and its neighbours of the same claim are handled."""
    script = textwrap.dedent(
        """
        import os, sys
        from pathlib import Path
        from support.outboxes import Order, keyed_outbox, sqlite_engine
        from madcrow_events.outbox import Retry, Worker

        folder = Path(sys.argv[1])
        outbox = keyed_outbox()

        @outbox.on("order", id="mail", retry=Retry(attempts=2, wait_initial=0, wait_jitter=0))
        def kill(context: Order) -> None:
            if context.number == 3:
                os._exit(7)
            with (folder / "handled").open("a") as file:
                file.write(f"{context.number} ")

        Worker(outbox, sqlite_engine(folder), lease=0.2, poll=0.05).run(once=True)
        """
    )
    outbox.on("order", id="mail")(lambda number: None)
    contexts = [Order(number=it, customer="a") for it in (1, 2, 3, 4)]
    emit(outbox, engine, *contexts, Order(number=5, customer="b"))
    paths = os.pathsep.join(["src", "tests"])
    for _ in range(12):
        ran = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": paths},
            cwd=Path(__file__).parents[3],
            check=False,
            timeout=60,
        )
        assert ran.returncode in (0, 7)
        if outbox.inspect(engine).dead():
            break
        time.sleep(0.25)
    (dead,) = outbox.inspect(engine).dead()
    assert (dead.id, dead.attempts, dead.error_type) == ("3-1", 2, "WorkerDiedError")
    handled = (tmp_path / "handled").read_text().split()
    assert set(handled) == {"1", "2", "5"}
    outbox.inspect(engine).discard(dead.id)
    assert drain_outbox(outbox, engine).done == 1


def test_lines_show_no_value_of_a_context(outbox, engine, caplog):
    """Neither do the stored errors (D12)."""

    @outbox.on("order", id="mail", retry=TWICE)
    def fail(context: Order) -> None:
        raise LookupError(context.customer)

    caplog.set_level(logging.DEBUG, logger="madcrow_events")
    emit(outbox, engine, Order(number=1, customer="canary-7531"))
    drain_outbox(outbox, engine, until_dead=True)
    shown = [record.getMessage() for record in caplog.records if "failed" not in record.msg]
    assert not any("canary-7531" in it for it in shown)
    assert "canary-7531" not in str(outbox.inspect(engine).dead())


def test_every_death_is_announced(outbox, engine):
    """Also that of a delivery whose handler was not called, or has not come back (D8)."""
    outbox.signals.signal("handler_failed", context=HandlerFailedEventContext)
    announced, released = [], threading.Event()
    outbox.signals.subscribe(
        "handler_failed", lambda exception_type: announced.append(exception_type), weak=False
    )

    @outbox.on("order", id="mail", retry=Retry(attempts=1), timeout=0.05)
    def mail(context: Order) -> None:
        released.wait(20)

    emit(outbox, engine, Order(number=1, customer="a"), Order(number=2, customer="b"))
    change(engine, "update madcrow_event set payload = '' where seq = 1")
    with Worker(outbox, engine, poll=0.02):
        wait_for(lambda: sorted(announced) == ["HandlerTimeoutError", "MalformedPayloadError"])
        released.set()


def test_a_failed_announcement_ends_nothing(outbox, engine, caplog):
    """The line names the class of what was raised, and no more."""
    outbox.signals.signal("handler_failed", context=HandlerFailedEventContext)
    EventDispatcher(outbox.signals, on_error="raise")

    def fail() -> None:
        raise LookupError("canary-7531")

    outbox.signals.subscribe("handler_failed", fail, on_error="raise", weak=False)
    outbox.on("order", id="mail")(lambda number: None)
    emit(outbox, engine, Order(number=1))
    change(engine, "update madcrow_event set payload = ''")
    assert drain_outbox(outbox, engine) == (0, 1, 0)
    assert lines_of(caplog)[-1] == (
        "the announcement of a dead delivery of order has failed: LookupError"
    )


def test_a_plain_handler_that_comes_back_too_late_has_failed(outbox, engine):
    """Even if nobody has looked in time."""

    @outbox.on("order", id="mail", retry=TWICE, timeout=0.01)
    def mail(context: Order) -> None:
        time.sleep(0.02)

    emit(outbox, engine, Order(number=1))
    assert drain_outbox(outbox, engine, until_dead=True) == (0, 1, 1)
    assert outbox.inspect(engine).dead()[0].error_type == "HandlerTimeoutError"
