"""The database is away, full or locked, or the clock jumps: nothing is lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from madcrow_events import SignalRegistry
from madcrow_events.outbox import Outbox, Worker
from madcrow_events.testing import drain_outbox
from support.outboxes import Order, emit, keyed_outbox, lines_of, sqlite_engine, wait_for

pytestmark = pytest.mark.once

AWAY = "the outbox cannot use its database, and tries again: OperationalError (SQLITE_BUSY)"
BACK = "the outbox can use its database again"


@pytest.fixture
def engine(tmp_path):
    engine = sqlite_engine(tmp_path, connect_args={"timeout": 0.05})
    yield engine
    engine.dispose()


@pytest.fixture
def outbox(engine):
    outbox = keyed_outbox()
    outbox.metadata.create_all(engine)
    return outbox


class Lock:
    """Another program's lock on the whole database."""

    def __init__(self, engine):
        self.connection = engine.connect()
        self.connection.exec_driver_sql("BEGIN IMMEDIATE")

    def release(self):
        self.connection.rollback()
        self.connection.close()


def test_a_commit_that_fails_calls_nobody(outbox, engine):
    """The emitter gets the error of the database, and can do it again."""
    handled, heard = [], []
    outbox.on("order", id="mail")(lambda number: handled.append(number))
    outbox.signals["order"].on()(lambda number: heard.append(number))
    lock = Lock(engine)
    with Session(engine) as session:
        outbox.emit(session, Order(number=1))
        with pytest.raises(OperationalError, match="locked"):
            session.commit()
        session.rollback()
        lock.release()
        assert heard == []
        outbox.emit(session, Order(number=2))
        session.commit()
    assert heard == [2]
    drain_outbox(outbox, engine)
    assert handled == [2]


def test_a_worker_waits_for_a_database_that_is_away_at_its_claim(outbox, engine, caplog):
    """It says so once, and goes on when the database is back."""
    handled = []
    outbox.on("order", id="mail")(lambda number: handled.append(number))
    emit(outbox, engine, Order(number=1))
    with Worker(outbox, engine, poll=0.05):
        wait_for(lambda: handled == [1])
        emit(outbox, engine, Order(number=2))
        lock = Lock(engine)
        time.sleep(1)
        lock.release()
        wait_for(lambda: handled == [1, 2])
        # It may have claimed before the lock. And it says once that the database is away.
        wait_for(lambda: lines_of(caplog).count(AWAY) == lines_of(caplog).count(BACK))


def test_a_worker_settles_when_a_database_that_was_away_is_back(outbox, engine, caplog):
    """The handler is not called again, because its lease is still good."""
    handled, began, locked = [], threading.Event(), threading.Event()

    @outbox.on("order", id="mail")
    def mail(number: int) -> None:
        began.set()
        locked.wait(20)
        handled.append(number)

    emit(outbox, engine, Order(number=1))
    with Worker(outbox, engine, poll=0.05):
        assert began.wait(20)
        lock = Lock(engine)
        locked.set()
        wait_for(lambda: AWAY in lines_of(caplog))
        time.sleep(0.5)
        lock.release()
        wait_for(lambda: BACK in lines_of(caplog))
    assert handled == [1]
    assert drain_outbox(outbox, engine) == (0, 0, 0)
    assert lines_of(caplog) == [AWAY, BACK]


def test_a_lease_that_cannot_be_renewed_is_tried_again(outbox, engine, caplog):
    """If it has not ended by then, nobody else calls the handler."""
    began, released, handled = threading.Event(), threading.Event(), []

    @outbox.on("order", id="mail")
    def mail(number: int) -> None:
        began.set()
        released.wait(20)
        handled.append(number)

    emit(outbox, engine, Order(number=1))
    line = "the leases of 1 runs were not renewed: OperationalError"
    with Worker(outbox, engine, lease=1.5, poll=0.05):
        assert began.wait(20)
        lock = Lock(engine)
        wait_for(lambda: line in lines_of(caplog))
        lock.release()
        time.sleep(1.5)
        released.set()
    assert handled == [1]
    assert drain_outbox(outbox, engine) == (0, 0, 0)


def test_a_worker_that_is_told_twice_to_end_waits_for_no_database(outbox, engine):
    """The lease ends by itself, and others call the handler again."""
    began, released = threading.Event(), threading.Event()

    @outbox.on("order", id="mail")
    def mail(number: int) -> None:
        began.set()
        released.wait(20)

    emit(outbox, engine, Order(number=1))
    with Worker(outbox, engine, poll=0.05) as worker:
        assert began.wait(20)
        lock = Lock(engine)
        worker.stop()
    lock.release()
    released.set()
    (mail_status,) = outbox.inspect(engine).status().handlers
    assert mail_status.running == 1


@pytest.fixture
def small_disk(tmp_path):
    """Return the folder of a disk of 600 kB; of a limited file where nobody may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    is_mounted = sys.platform == "linux" and os.geteuid() == 0
    is_mounted = is_mounted and not subprocess.run(mount, check=False).returncode
    yield folder, is_mounted
    if is_mounted:
        subprocess.run([shutil.which("umount") or "umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_refuses_commits_and_loses_nothing(small_disk, caplog):
    """The emitter gets the error, the worker waits, and all that was committed is handled."""
    folder, is_mounted = small_disk
    engine, outbox, handled = sqlite_engine(folder), keyed_outbox(), []
    outbox.on("order", id="mail")(lambda number: handled.append(number))
    outbox.metadata.create_all(engine)
    filler = folder / "filler"

    @event.listens_for(engine, "connect")
    def _limit(connection, _record):
        if filler.exists() and not is_mounted:
            connection.execute("PRAGMA max_page_count = 1")  # what there is already

    with Worker(outbox, engine, poll=0.05):
        with Session(engine) as session:
            for number in range(5):
                order = Order(number=number, customer=str(number))
                outbox.emit(session, order, not_before=datetime.now(UTC) + timedelta(seconds=1))
            session.commit()
        filler.touch()
        if is_mounted:
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(1024)):
                    pass
        engine.dispose()
        with Session(engine) as session:
            for _ in range(100):
                outbox.emit(session, Order(number=-1, customer="x" * 500))
            with pytest.raises(OperationalError, match="full"):
                session.commit()
        if is_mounted:
            wait_for(lambda: "tries again: OperationalError (SQLITE_FULL)" in caplog.text)
        filler.unlink()
        wait_for(lambda: sorted(handled) == [0, 1, 2, 3, 4])
    engine.dispose()
    emit(outbox, engine, Order(number=5))
    drain_outbox(outbox, engine)
    assert sorted(handled) == [0, 1, 2, 3, 4, 5]
    engine.dispose()


@pytest.mark.parametrize("jump", [3600, -3600])
def test_a_clock_that_jumps_calls_nobody_twice(outbox, engine, caplog, monkeypatch, jump):
    """The leases of workers that live are renewed before anybody claims by the new time."""
    started, released, handled = [], threading.Event(), []

    @outbox.on("order", id="mail")
    def mail(number: int) -> None:
        started.append(number)
        if number == 1:
            released.wait(20)
        handled.append(number)

    emit(outbox, engine, Order(number=1, customer="a"))
    offset, time_ns = [0], time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: time_ns() + offset[0])
    options = {"lease": 1.5, "poll": 0.05}
    with Worker(outbox, engine, **options), Worker(outbox, engine, **options):
        wait_for(lambda: started == [1])
        offset[0] = jump * 1_000_000_000
        wait_for(lambda: len(lines_of(caplog)) >= 2)
        emit(outbox, engine, Order(number=2, customer="b"))
        wait_for(lambda: handled == [2])
        time.sleep(2)  # longer than the lease
        assert started == [1, 2]
        released.set()
        wait_for(lambda: handled == [2, 1])
    assert f"the clock of the outbox has jumped by {jump:+d} seconds" in lines_of(caplog)
    assert drain_outbox(outbox, engine) == (0, 0, 0)
    assert started == [1, 2]


def test_workers_of_two_versions_share_the_work(engine):
    """The older one leaves the new version to the newer one, which raises the old one."""

    class NewerOrder(Order):
        event_version: ClassVar[int] = 2
        currency: str

    def outbox_of(model, name):
        signals = SignalRegistry()
        signals.signal("order", context=model, key="customer")
        outbox = Outbox("/shop", signals=signals)
        outbox.on("order", id="mail")(lambda number: handled.append((name, number)))
        return outbox

    handled = []
    old, new = outbox_of(Order, "old"), outbox_of(NewerOrder, "new")
    new.upcast("order", from_version=1)(lambda document: {**document, "currency": "EUR"})
    old.metadata.create_all(engine)
    with Worker(old, engine, poll=0.02), Worker(new, engine, poll=0.02):
        for number in range(0, 40, 2):
            emit(old, engine, Order(number=number, customer=str(number)))
            emit(
                new,
                engine,
                NewerOrder(number=number + 1, customer=str(number + 1), currency="USD"),
            )
        wait_for(lambda: len(handled) >= 40)
    assert sorted(number for _, number in handled) == list(range(40))
    assert {name for name, number in handled if number % 2} == {"new"}
