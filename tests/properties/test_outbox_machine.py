"""The outbox against a plain model, over many random steps.

Rules change both sides alike; after each step the tables are compared with the model. All of it
happens in one thread, and time passes only where a rule says so.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

pytest.importorskip("sqlalchemy")

from sqlalchemy import create_engine, delete, event, text, update
from sqlalchemy.orm import Session

from madcrow_events.outbox import _calling, _claiming
from madcrow_events.outbox._calling import Caller, Ended, Run
from madcrow_events.outbox._claiming import Claiming
from madcrow_events.outbox._database import SharedDatabase
from madcrow_events.outbox._inspecting import Inspection
from support.outbox_model import (
    DEAD,
    HEAD,
    PARKED,
    ClaimedRun,
    Delivery,
    Event,
    OutboxModel,
    Outcome,
)
from support.outbox_shops import EFFECTS, HOUR, Clock, Shop, handlers
from support.outboxes import postgresql_schema
from support.transactions import with_real_transactions

KEYS = ["a", "b", None]
IDS = [UUID(int=it, version=4) for it in (1, 2)]
ACTS = ["ok", "ok", "ok", "fail", "give up", "later", "now", "slow", "too slow"]
LEASE = 2 * HOUR
FOR_EVER = 10 * 366 * 24 * 3600 * 1_000_000
STEPS = 60


@dataclass(eq=False, repr=False)
class Emitter:
    """A session with an open transaction, and what each of its savepoints has emitted."""

    shop: Shop
    session: Session
    layers: list[tuple[Any, list[Event]]] = field(default_factory=list)

    @property
    def emitted(self) -> list[Event]:
        return [it for _, events in self.layers for it in events]


@dataclass(eq=False, repr=False)
class Worker:
    """What a worker has when it runs: its handlers, and what it has claimed."""

    shop: Shop
    claiming: Claiming
    caller: Caller
    ids: dict[str, int]
    runs: list[Held] = field(default_factory=list)


@dataclass(eq=False, repr=False)
class Held:
    """A run in the hands of a worker, which it may have called."""

    worker: Worker
    run: Run
    model: ClaimedRun
    ended: Ended | None = None
    outcome: Outcome | None = None

    def __repr__(self) -> str:
        return f"<run of {[it.delivery for it in self.model.rows]}>"


@dataclass
class Open:
    """The transaction of a worker that is still open in PostgreSQL, and what it has locked."""

    connection: Any
    locked: set[tuple[str, int]]
    commit: Any
    """What becomes of the model if it is committed."""


@dataclass(frozen=True)
class Drawn:
    """Some events alike, which are emitted in one step."""

    name: str
    key: str | None
    is_newer: bool = False
    sender: str | None = None
    given_id: UUID | None = None
    is_delayed: bool = False
    count: int = 1
    is_committed: bool = True


DRAWN = st.builds(
    Drawn,
    name=st.sampled_from(["order", "order", "order", "note", "refund"]),
    key=st.sampled_from(KEYS),
    is_newer=st.sampled_from([False, False, True]),
    sender=st.sampled_from([None, "web", "app"]),
    given_id=st.sampled_from([None, None, None, *IDS]),
    is_delayed=st.sampled_from([False, False, False, True]),
    count=st.integers(1, 5),
    is_committed=st.sampled_from([True, True, False]),
)


def one_of(data: st.DataObject, choices: Any) -> Any:
    """Draw one of some things, of which failing examples show the place only."""
    return choices[data.draw(st.integers(0, len(choices) - 1))]


class OutboxMachine(RuleBasedStateMachine):
    engine: Any
    shops: tuple[Shop, Shop]
    clock: Clock
    seen: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.emitters: list[Emitter] = []
        self.workers: list[Worker] = []
        self.open: Open | None = None
        self.heard: list[int] = []
        self.number = 0
        self.ids: dict[str, int] = {}
        self.tables = self.shops[0].outbox.tables
        self.statements = self.shops[0].outbox._statements_for(self.engine)
        self.access = SharedDatabase(self.engine)
        self.inspection = Inspection(
            lambda: self.access, self.statements, self.tables, lambda connection: None
        )
        self.queries = [
            text(f"select * from {it.name}")  # noqa: S608  # a name of ours
            for it in (self.tables.delivery, self.tables.event, EFFECTS)
        ]
        self.clock.now = 0.0
        for shop in self.shops:
            shop.heard.clear()
        with self.engine.begin() as connection:
            for table in (*self.tables.metadata.sorted_tables, EFFECTS):
                connection.execute(delete(table))

    @property
    def is_postgresql(self) -> bool:
        return self.engine.dialect.name == "postgresql"

    @property
    def locked(self) -> set[tuple[str, int]]:
        return set() if self.open is None else self.open.locked

    @property
    def held(self) -> list[Held]:
        return [it for worker in self.workers for it in worker.runs]

    @initialize(keeps=st.booleans(), is_newer=st.sampled_from([False, False, True, None]))
    def begin(self, keeps: bool, is_newer: bool | None) -> None:
        self.model = OutboxModel(handlers(), keeps=keeps)
        if is_newer is not None:
            self.start_a_worker(is_newer=is_newer)

    # Emitting

    @precondition(lambda self: len(self.emitters) < 2)
    @rule(is_newer=st.booleans())
    def begin_a_transaction(self, is_newer: bool) -> None:
        shop = self.shops[is_newer]
        self.emitters.append(Emitter(shop, Session(self.engine), [(None, [])]))

    @rule(data=st.data(), drawn=DRAWN)
    def emit(self, data: st.DataObject, drawn: Drawn) -> None:
        if not self.emitters:
            self.begin_a_transaction(is_newer=drawn.is_newer)
        emitter = one_of(data, self.emitters)
        self._emit(emitter, drawn)
        if drawn.is_committed and len(emitter.layers) == 1:
            self._end(emitter, is_kept=True)

    def _emit(self, emitter: Emitter, drawn: Drawn) -> None:
        shop, name = emitter.shop, drawn.name
        later = datetime.now(UTC) + timedelta(seconds=HOUR) if drawn.is_delayed else None
        for _ in range(drawn.count):
            self.number += 1
            emission = shop.outbox.emit(
                emitter.session,
                shop.context(name, self.number, drawn.key),
                sender=drawn.sender,
                id=drawn.given_id,
                not_before=later,
            )
            emitter.layers[-1][1].append(
                Event(
                    self.number,
                    str(emission.id),
                    name,
                    drawn.key if name != "note" else None,
                    drawn.sender,
                    shop.versions[name],
                    drawn.is_delayed,
                    drawn.given_id is not None,
                )
            )

    @precondition(lambda self: self.emitters)
    @rule(data=st.data())
    def begin_a_savepoint(self, data: st.DataObject) -> None:
        emitter = one_of(data, self.emitters)
        if len(emitter.layers) < 4:
            emitter.layers.append((emitter.session.begin_nested(), []))

    @precondition(lambda self: any(len(it.layers) > 1 for it in self.emitters))
    @rule(data=st.data(), is_kept=st.booleans())
    def end_a_savepoint(self, data: st.DataObject, is_kept: bool) -> None:
        within = [it for it in self.emitters if len(it.layers) > 1]
        emitter = one_of(data, within)
        savepoint, events = emitter.layers.pop()
        if is_kept:
            savepoint.commit()
            emitter.layers[-1][1].extend(events)
        else:
            savepoint.rollback()

    @precondition(lambda self: self.emitters)
    @rule(data=st.data(), is_kept=st.sampled_from([True, True, True, False]))
    def end_a_transaction(self, data: st.DataObject, is_kept: bool) -> None:
        self._end(one_of(data, self.emitters), is_kept)

    def _end(self, emitter: Emitter, is_kept: bool) -> None:
        if self.open is not None and any(it.is_kept for it in emitter.emitted):
            self.end_what_is_open(is_kept=True)  # the commit may wait for a row with the same id
        self.emitters.remove(emitter)
        if not is_kept:
            emitter.session.rollback()
            emitter.session.close()
            return
        emitter.session.commit()
        emitter.session.close()
        self.heard += [it.number for it in emitter.emitted]
        fresh = self.model.commit(emitter.emitted)
        with self.engine.begin() as connection:
            seqs = {it.event_id: it.seq for it in connection.execute(self.queries[1])}
        for it in fresh:
            it.seq = seqs[it.id]
        assert [it.seq for it in fresh] == sorted(it.seq for it in fresh)

    # Workers

    @precondition(lambda self: len(self.workers) < 4 and self.open is None)
    @rule(is_newer=st.booleans())
    def start_a_worker(self, is_newer: bool) -> None:
        shop = self.shops[is_newer]
        by_id = shop.outbox._announce(self.access)
        caller = Caller(
            shop.dispatcher,
            self.statements,
            self.engine,
            shop.outbox,
            shop.outbox._read,
            None,
            keep=self.model.keeps,
        )
        claiming = Claiming(self.statements, by_id, LEASE)
        ids = {it.name: id_ for id_, it in by_id.items()}
        self.workers.append(Worker(shop, claiming, caller, ids))
        self.model.announce(ids, shop.versions)
        self.ids |= ids

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def kill_a_worker(self, data: st.DataObject) -> None:
        """What it had called so far was called, and nobody hears of it."""
        worker = one_of(data, self.workers)
        if self.open is None:
            for it in worker.runs:
                if it.ended is None and not it.model.handler.is_single:
                    it.run.rows = it.run.rows[: data.draw(st.integers(0, len(it.run.rows)))]
                    it.model.rows = it.model.rows[: len(it.run.rows)]
                    if it.run.rows:
                        self._call(it, data)
            self.workers.remove(worker)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def forget_a_run(self, data: st.DataObject) -> None:
        it = one_of(data, self.held)
        it.worker.runs.remove(it)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def expand(self, data: st.DataObject) -> None:
        worker = one_of(data, self.workers)
        self._expand(worker)

    def _expand(self, worker: Worker) -> None:
        before = len(self.model.new_events())
        count = self.access.transaction(worker.claiming.expand)
        if self.open is not None and self.open.commit is None:
            assert count == 0, "one worker expands at a time"
            return
        self.model.expand(self.locked)
        assert count == before - len(self.model.new_events())

    @precondition(lambda self: self.workers)
    @rule(
        data=st.data(),
        room=st.sampled_from([1, 2, 16, 16]),
        ahead=st.sampled_from([False, False, True]),
        expands=st.sampled_from([True, True, False]),
    )
    def claim(self, data: st.DataObject, room: int, ahead: bool, expands: bool) -> None:
        """With the clock ahead, what is delayed is due, and all leases are over."""
        worker = one_of(data, self.workers)
        if expands:
            self._expand(worker)
        self._claim(worker, room, ahead)

    def _claim(self, worker: Worker, room: int, ahead: bool) -> list[Held]:
        if self.is_postgresql:
            self.clock.now += 2.0  # what was locked at the last claim is looked for again
        look = self.access.transaction(worker.claiming.look)
        assert look.has_new is bool(self.model.new_events()) or self.open is not None
        heads = partial(self._heads, worker)
        known = {it for it in worker.ids if heads(it, ahead=True, locked=set())}
        ready = {it for it in worker.ids if heads(it, ahead=False, locked=set())}
        assert set(look.due) == {worker.ids[it] for it in known}
        due = {it for it, moment in look.due.items() if moment <= look.now}
        assert due == {worker.ids[it] for it in ready}
        before = {it: heads(it, ahead=ahead, locked=self.locked) for it in worker.ids}
        running = Counter(it.run.handler_id for it in worker.runs)
        runs = self.access.transaction(
            lambda connection: worker.claiming.claim(
                connection, look, room=room, running=running, ahead=FOR_EVER if ahead else 0
            )
        )
        most = {
            name: min(len(found), self.model.handlers[name].concurrency - running[worker.ids[name]])
            for name, found in before.items()
        }
        counts = Counter(it.handler.name for it in runs)
        assert len(runs) == min(room, sum(max(0, it) for it in most.values()))
        assert all(count <= most[name] for name, count in counts.items())
        claimed = [self._check(worker, run, before[run.handler.name], ahead) for run in runs]
        worker.runs += claimed
        return claimed

    def _heads(
        self, worker: Worker, name: str, *, ahead: bool, locked: set[tuple[str, int]]
    ) -> list[Delivery]:
        handler = self.model.handlers[name]
        version = worker.shop.versions[handler.event]
        return self.model.heads(handler, version, ahead=ahead, locked=locked)

    def _check(self, worker: Worker, run: Run, heads: list[Delivery], ahead: bool) -> Held:
        head = next(it for it in heads if it.seq == run.rows[0].event_seq)
        version = worker.shop.versions[head.event.name]
        model = self.model.claim(head, run.token, version, ahead=ahead)
        assert [(it.event_seq, it.attempts, it.deliveries, it.alone_until) for it in run.rows] == [
            (it.delivery.seq, it.attempts, it.deliveries, it.alone_until) for it in model.rows
        ]
        self.seen["run" if len(model.rows) > 1 else "single"] += 1
        return Held(worker, run, model)

    @precondition(lambda self: self.open is None and any(it.ended is None for it in self.held))
    @rule(data=st.data(), are_all=st.booleans(), are_settled=st.booleans())
    def call(self, data: st.DataObject, are_all: bool, are_settled: bool) -> None:
        uncalled = [it for it in self.held if it.ended is None]
        chosen = uncalled if are_all else [one_of(data, uncalled)]
        for it in chosen:
            self._call(it, data)
            if are_settled and it in it.worker.runs:
                self._settle(it.worker, [it])

    def _call(self, it: Held, data: st.DataObject | None) -> None:
        shop, model = it.worker.shop, it.model
        numbers = [row.delivery.event.number for row in model.rows]
        drawn = data.draw(st.lists(st.sampled_from(ACTS), max_size=4)) if data is not None else []
        shop.acts = dict(zip(numbers, drawn, strict=False))
        model.is_over = not it.run.is_valid
        shop.calls.clear()
        is_held = self.model.is_held(model)
        it.ended = it.worker.caller.call(it.run)
        it.outcome = self.model.call(model, shop.acts)
        assert shop.calls == it.outcome.calls
        assert it.ended.done == (0 if it.outcome.is_lost else len(it.outcome.done))
        is_settled = it.outcome.is_lost or it.outcome.is_settled
        assert (it.ended.settlement is None) is is_settled
        if is_settled:
            it.worker.runs.remove(it)
        self.seen["paused" if not is_held else "lost" if it.outcome.is_lost else "called"] += 1

    @precondition(lambda self: self.open is None and any(it.ended is None for it in self.held))
    @rule(data=st.data(), is_overdue=st.booleans(), is_later=st.booleans())
    def do_not_call(self, data: st.DataObject, is_overdue: bool, is_later: bool) -> None:
        """Give a run back, or find that its handler runs too long."""
        it = one_of(data, [it for it in self.held if it.ended is None])
        if is_overdue:
            it.ended = it.worker.caller.time_out(it.run)
            left = self.model.timed_out(it.model)
        else:
            it.ended = it.worker.caller.give_back(it.run, HOUR if is_later else 0.0)
            left = self.model.given_back(it.model, it.model.rows[0], is_later=is_later)
        it.outcome = Outcome(left=left)

    @precondition(lambda self: self.open is None and any(it.ended for it in self.held))
    @rule(data=st.data(), stays_open=st.booleans())
    def settle(self, data: st.DataObject, stays_open: bool) -> None:
        """Settle runs of one worker; some may have been taken over, by this worker, too."""
        worker = one_of(data, [it.worker for it in self.held if it.ended])
        ended = [it for it in worker.runs if it.ended]
        chosen = ended[: data.draw(st.integers(1, len(ended)))]
        if stays_open and self.is_postgresql:
            chosen = [it for it in chosen if self.model.is_held(it.model)][:1]
            if chosen:
                self._leave_open(chosen[0])
            return
        self._settle(worker, chosen)

    def _settle(self, worker: Worker, chosen: list[Held]) -> None:
        settlements = [it.ended.settlement for it in chosen if it.ended and it.ended.settlement]
        lost = self.access.transaction(
            lambda connection: worker.caller.settle(connection, settlements)
        )
        assert len(lost) == sum(not self.model.is_held(it.model) for it in chosen)
        held = [it for it in chosen if self.model.is_held(it.model)]
        for it in held:
            assert it.outcome is not None
            self.model.settle(it.model, it.outcome)
        worker.runs = [it for it in worker.runs if it not in chosen]
        self.seen["settled"] += len(held)
        self.seen["refused"] += len(lost)

    def _leave_open(self, it: Held) -> None:
        assert it.outcome is not None
        assert it.ended is not None
        connection = self.engine.connect()
        lost = it.worker.caller.settle(connection, [it.ended.settlement])  # type: ignore[list-item]
        assert not lost
        it.worker.runs.remove(it)
        locked = self.model.touched(it.model, it.outcome)
        self.open = Open(connection, locked, partial(self.model.settle, it.model, it.outcome))

    @precondition(lambda self: self.workers and self.open is None and self.is_postgresql)
    @rule(data=st.data())
    def emit_while_a_run_is_settled(self, data: st.DataObject) -> None:
        """What is emitted for a lane waits until its tail is no longer being settled."""
        held = [it for it in self._held_now(data) if not it.model.handler.is_single]
        held = [it for it in held if it.model.rows[0].delivery.lane is not None]
        if not held:
            return
        it = one_of(data, held)
        if it.ended is None:
            self._call(it, data)
        if it not in it.worker.runs:
            return
        name, key = it.model.handler.event, it.model.rows[0].delivery.lane
        self._leave_open(it)
        emitter = Emitter(self.shops[0], Session(self.engine), [(None, [])])
        self.emitters.append(emitter)
        self._emit(emitter, Drawn(name, key))
        self._end(emitter, is_kept=True)
        self._expand(it.worker)
        self.seen["waiting"] += len(self.model.new_events()) > 0

    @precondition(
        lambda self: (
            self.workers and self.open is None and self.is_postgresql and self.model.new_events()
        )
    )
    @rule(data=st.data())
    def expand_and_stay_open(self, data: st.DataObject) -> None:
        worker = one_of(data, self.workers)
        connection = self.engine.connect()
        worker.claiming.expand(connection)
        self.open = Open(connection, self.model.tails(), None)
        self.expanded = len(self.model.new_events())

    @precondition(lambda self: self.open is not None)
    @rule(is_kept=st.sampled_from([True, True, False]))
    def end_what_is_open(self, is_kept: bool) -> None:
        assert self.open is not None
        open_, self.open = self.open, None
        if is_kept:
            open_.connection.commit()
            if open_.commit is not None:
                open_.commit()
            else:
                later = self.model.new_events()[self.expanded :]
                for it in later:
                    it.state = "later"
                self.model.expand(set())
                for it in later:
                    it.state = "new"
            self.seen["ended late"] += 1
        open_.connection.close()

    @precondition(lambda self: self.workers and self.open is None)
    @rule(data=st.data())
    def work(self, data: st.DataObject) -> None:
        """Do all that is due, as a worker does that nothing disturbs."""
        self._work(one_of(data, self.workers), ahead=False)

    def _work(self, worker: Worker, *, ahead: bool) -> bool:
        self._expand(worker)
        claimed = self._claim(worker, 16, ahead)
        for it in claimed:
            self._call(it, None)
        ended = [it for it in claimed if it in worker.runs]
        if ended:
            self._settle(worker, ended)
        return bool(claimed)

    # Time

    def _pass_time(self, it: Delivery) -> None:
        table, id_ = self.tables.delivery, self.ids[it.handler.name]

        def pass_time(connection: Any) -> None:
            change = update(table).values(due=self.statements.now(connection))
            connection.execute(change.where(table.c.event_seq == it.seq, table.c.handler_id == id_))

        self.access.transaction(pass_time)
        it.is_later = False

    @precondition(lambda self: self.open is None and self._later())
    @rule(data=st.data())
    def time_passes(self, data: st.DataObject) -> None:
        """A delay or a lease is over."""
        self._pass_time(one_of(data, self._later()))

    def _later(self) -> list[Delivery]:
        return [it for it in self._sorted() if it.is_later and it.state in {HEAD, PARKED}]

    def _sorted(self) -> list[Delivery]:
        return sorted(self.model.deliveries.values(), key=lambda it: (it.seq, it.handler.name))

    @precondition(lambda self: self.workers and self.open is None)
    @rule(data=st.data(), are_together=st.booleans())
    def take_over(self, data: st.DataObject, are_together: bool) -> None:
        """A worker claims what another one, or it itself, has called, and has held for too long."""
        held = self._held_now(data)
        if not held:
            return
        it = one_of(data, held)
        if it.ended is None and not it.model.handler.is_single:
            self._call(it, data)
        head = it.model.rows[0].delivery
        self._pass_time(head)
        claimed = self._claim(one_of(data, self.workers), 16, ahead=False)
        later = [one for one in claimed if one.model.rows[0].delivery is head]
        for one in later:
            self._call(one, data)
        self.seen["taken over"] += len(later)
        if are_together:
            both = [one for one in (it, *later) if one in one.worker.runs and one.ended]
            for worker in self.workers:
                if mine := [one for one in both if one.worker is worker]:
                    self._settle(worker, mine)

    def _held_now(self, data: st.DataObject) -> list[Held]:
        """Return the runs whose leases are held; claim some if there are none."""
        held = [it for it in self.held if self.model.is_held(it.model)]
        if held:
            return held
        worker = one_of(data, self.workers)
        self._expand(worker)
        return self._claim(worker, 16, ahead=True)

    @precondition(lambda self: self.open is None and self.held)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        it = one_of(data, self.held)
        self.access.transaction(
            lambda connection: self.statements.renew(
                connection, [it.run.token], int(LEASE * 1_000_000)
            )
        )
        self.model.renew(it.run.token)
        if self.model.is_held(it.model):
            it.run.valid_until = self.clock.now + LEASE

    # Mending

    def _announced(self) -> list[str]:
        return [it.name for it in self.model.handlers.values() if it.version]

    @precondition(lambda self: self.open is None and self._announced())
    @rule(data=st.data())
    def pause_or_resume(self, data: st.DataObject) -> None:
        handler = self.model.handlers[one_of(data, self._announced())]
        handler.is_paused = not handler.is_paused
        change = self.inspection.pause if handler.is_paused else self.inspection.resume
        change(handler.name)

    @precondition(lambda self: self.open is None and self._announced())
    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        handler = self.model.handlers[one_of(data, self._announced())]
        assert self.inspection.retire(handler.name) == self.model.retire(handler)

    def _idle(self) -> list[Delivery]:
        return [it for it in self._sorted() if self.model.is_idle(it)]

    def _id_of(self, it: Delivery) -> str:
        return f"{it.seq}-{self.ids[it.handler.name]}"

    @precondition(lambda self: self.open is None and self._idle())
    @rule(data=st.data(), are_retried=st.booleans())
    def retry_or_discard(self, data: st.DataObject, are_retried: bool) -> None:
        idle = self._idle()
        places = data.draw(st.lists(st.integers(0, len(idle) - 1), max_size=3, unique=True))
        chosen = [idle[it] for it in places]
        ids = [self._id_of(it) for it in chosen]
        change = self.inspection.retry if are_retried else self.inspection.discard
        assert change(*ids) == len(ids)
        for it in chosen:
            (self.model.retry if are_retried else self.model.discard)(it)

    @precondition(lambda self: self.open is None and self.model.events and self._announced())
    @rule(data=st.data(), is_for_one=st.booleans())
    def replay(self, data: st.DataObject, is_for_one: bool) -> None:
        it = one_of(data, self.model.events)
        name = one_of(data, self._announced()) if is_for_one else None
        made = self.inspection.replay(it.id, name)
        assert made == self.model.replay(it, name)
        self.seen["replayed"] += made

    @precondition(lambda self: self.open is None and self.number % 5 == 4)
    @rule()
    def purge(self) -> None:
        removed = self.inspection.purge()
        assert removed == self.model.purge()

    # After each step

    @invariant()
    def the_tables_are_as_the_model_says(self) -> None:
        self.seen["steps"] += 1
        names = {id_: name for name, id_ in self.ids.items()}
        with self.engine.begin() as connection:
            rows = connection.execute(self.queries[0]).all()
            events = connection.execute(self.queries[1]).all()
            effects = connection.execute(self.queries[2]).scalars().all()
            now = self.statements.now(connection)
        found = {
            (names[it.handler_id], it.event_seq): (
                it.state,
                it.key,
                it.due > now if it.state in {HEAD, PARKED} else None,
                it.token,
                it.attempts,
                it.deliveries,
                it.alone_until,
                it.replays,
            )
            for it in rows
        }
        expected = {
            key: (
                it.state,
                it.lane,
                it.is_later if it.state in {HEAD, PARKED} else None,
                it.token,
                it.attempts,
                it.deliveries,
                it.alone_until,
                it.replays,
            )
            for key, it in self.model.deliveries.items()
        }
        differ = {
            key: (found.get(key), expected.get(key))
            for key in found.keys() | expected.keys()
            if found.get(key) != expected.get(key)
        }
        assert not differ, f"deliveries, as they are and as the model says: {differ}"
        states = {"new": 0, "expanded": 1, "aside": 2}
        assert {it.seq: (it.event_id, it.expanded) for it in events} == {
            it.seq: (it.id, states[it.state]) for it in self.model.events
        }
        assert Counter(effects) == self.model.effects, "each effect happens once"
        self._check_lanes(rows)
        if self.seen["steps"] % 3 == 0:
            self._check_status()

    def _check_lanes(self, rows: Any) -> None:
        """Without the model: the first of each lane is its head, and no other one."""
        lanes: dict[tuple[int, str], list[tuple[int, int]]] = {}
        for it in rows:
            if it.key is not None:
                lanes.setdefault((it.handler_id, it.key), []).append((it.event_seq, it.state))
        for lane in lanes.values():
            (_, first), *others = sorted(lane)
            assert first in {HEAD, DEAD}
            assert all(state == PARKED for _, state in others)
        for seqs in self.model.settled.values():
            assert seqs == sorted(seqs), "the order of a key is that of the commits"

    @invariant()
    def what_was_rolled_back_is_never_called(self) -> None:
        assert sorted(it for shop in self.shops for it in shop.heard) == sorted(self.heard)

    def _check_status(self) -> None:
        status = self.inspection.status()
        model = self.model
        assert status.new == len(model.new_events())
        aside = Counter(it.name for it in model.events if it.state == "aside")
        assert {it.event: it.count for it in status.set_aside} == aside
        assert {it.name for it in status.handlers} == set(self._announced())
        for it in status.handlers:
            handler = model.handlers[it.name]
            mine = [row for row in model.deliveries.values() if row.handler is handler]
            heads = [row for row in mine if row.state == HEAD]
            assert (it.paused, it.retired) == (handler.is_paused, handler.is_retired)
            assert it.due == sum(not row.is_later for row in heads)
            assert it.running == sum(row.is_later and row.token is not None for row in heads)
            assert it.delayed == sum(row.is_later and row.token is None for row in heads)
            assert it.parked == sum(row.state == PARKED for row in mine)
            assert it.dead == sum(row.state == DEAD for row in mine)
            assert it.unknown == sum(
                row.state in {HEAD, PARKED} and row.event.version > handler.version for row in mine
            )
        ids = self.ids
        assert {(it.head, it.is_dead, it.waiting) for it in status.blocked} == {
            (f"{it.seq}-{ids[it.handler.name]}", it.state == DEAD, len(behind))
            for it in model.deliveries.values()
            if it.lane is not None
            and (it.state == DEAD or (it.state == HEAD and it.is_later and it.token is None))
            and (behind := model.lane(it.handler, it.lane)[1:])
        }

    # At the end

    def teardown(self) -> None:
        """Let a worker of the newer deployment do all that is left."""
        for emitter in self.emitters:
            emitter.session.close()
        if not hasattr(self, "model") or sys.exc_info()[1] is not None:
            if self.open is not None:
                self.open.connection.close()
            return
        if self.open is not None:
            self.end_what_is_open(is_kept=True)
        for handler in self.model.handlers.values():
            if handler.is_paused:
                handler.is_paused = False
                self.inspection.resume(handler.name)
        self.workers = []
        self.start_a_worker(is_newer=True)
        (worker,) = self.workers
        for _ in range(200):
            for it in self._sorted():
                if it.state == DEAD:
                    self.inspection.retry(self._id_of(it))
                    self.model.retry(it)
            if not self._work(worker, ahead=True) and not self._work(worker, ahead=True):
                break
        self.the_tables_are_as_the_model_says()
        self._check_status()
        self.what_was_rolled_back_is_never_called()
        if self.model.keeps:
            assert all(it.state not in {HEAD, PARKED, DEAD} for it in self._sorted())
        else:
            assert not self.model.deliveries
        assert all(it.state == "expanded" for it in self.model.events)
        self.inspection.purge()


@contextmanager
def sqlite(folder: Path) -> Iterator[Any]:
    engine = create_engine(f"sqlite:///{folder / 'machine.db'}")

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = MEMORY")

    yield with_real_transactions(engine)
    engine.dispose()


@contextmanager
def postgresql(_folder: Path) -> Iterator[Any]:
    with postgresql_schema() as engine:
        yield engine


@contextmanager
def machine(engine: Any) -> Iterator[type[OutboxMachine]]:
    """Yield the class of a machine for a database."""
    # Locks go by the names of tables, and other tests may hold those of the usual ones.
    clock, prefix = Clock(), f"machine_{uuid4().hex[:8]}_"
    shops = tuple(Shop(is_newer=it, prefix=prefix, clock=clock) for it in (False, True))
    shops[0].outbox.metadata.create_all(engine)
    EFFECTS.create(engine)
    named = {"engine": engine, "shops": shops, "clock": clock, "seen": Counter()}
    log = logging.getLogger("madcrow_events")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)  # failures would fill it
    try:
        with (
            mock.patch.object(_calling, "monotonic", clock),
            mock.patch.object(_claiming, "monotonic", clock),
        ):
            yield type("Machine", (OutboxMachine,), named)
    finally:
        log.setLevel(level)


def run(database: Any, folder: Path, examples: int) -> None:
    with database(folder) as engine, machine(engine) as class_:
        run_state_machine_as_test(
            class_,
            settings=settings(
                max_examples=examples,
                stateful_step_count=STEPS,
                deadline=None,
                # To shrink an example takes minutes, and it is read as well as it is.
                phases=[Phase.explicit, Phase.reuse, Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
        print(dict(class_.seen))
        assert class_.seen["steps"] >= examples * 5


@pytest.mark.guarantee("D4", "D5")
@pytest.mark.parametrize(("database", "examples"), [(sqlite, 12), (postgresql, 5)])
def test_the_outbox_agrees_with_a_plain_model(tmp_path: Path, database: Any, examples: int) -> None:
    """Over a few hundred steps, in every run."""
    run(database, tmp_path, examples)


@pytest.mark.soak
@pytest.mark.parametrize(("database", "examples"), [(sqlite, 800), (postgresql, 300)])
def test_the_outbox_agrees_with_a_plain_model_for_long(
    tmp_path: Path, database: Any, examples: int, scale: float
) -> None:
    """Over 40,000 steps in full."""
    run(database, tmp_path, int(examples * scale))
