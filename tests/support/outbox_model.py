"""A plain model of an outbox: lists and dictionaries instead of tables and statements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

HEAD, PARKED, DEAD, DONE = 0, 1, 2, 3
LONGEST_RUN = 10


@dataclass(eq=False)
class Handler:
    """What is known of a durable handler; it is announced when it has a version."""

    name: str
    event: str
    attempts: int
    wait: bool = True
    goes_on: bool = False
    is_single: bool = False
    sender: str | None = None
    concurrency: int = 99
    skips: int | None = None
    """Numbers that are divisible by this are not for it."""
    version: int = 0
    is_paused: bool = False
    is_retired: bool = False

    @property
    def is_keyed(self) -> bool:
        return self.event != "note"

    @property
    def is_listening(self) -> bool:
        return self.version > 0 and not self.is_retired


@dataclass(eq=False, repr=False)
class Event:
    """An event that was committed; `seq` is its place in the order of commits."""

    number: int
    id: str
    name: str
    key: str | None
    sender: str | None
    version: int
    is_delayed: bool
    is_kept: bool
    """Whether it has an id of the emitter's, or was replayed a moment ago."""
    state: str = "new"
    seq: int = 0

    def __repr__(self) -> str:
        return f"<{self.name} {self.number}, key {self.key}, {self.state}>"


@dataclass(eq=False, repr=False)
class Delivery:
    """A delivery. `is_later` tells that its `due`, or the end of its lease, is in the future."""

    event: Event
    handler: Handler
    lane: str | None
    state: int
    is_later: bool
    token: int | None = None
    attempts: int = 0
    deliveries: int = 0
    alone_until: int = 0
    replays: int = 0

    def __repr__(self) -> str:
        return f"<{self.event} to {self.handler.name}, state {self.state}, {self.lane}>"

    @property
    def seq(self) -> int:
        return self.event.seq


@dataclass(frozen=True)
class Row:
    """A delivery as it was when it was claimed."""

    delivery: Delivery
    attempts: int
    deliveries: int
    alone_until: int


@dataclass(eq=False)
class ClaimedRun:
    handler: Handler
    token: int
    rows: list[Row]
    is_over: bool = False
    """Whether its worker knows that its lease is over."""


@dataclass
class Left:
    """How a delivery goes on that was not handled."""

    row: Row
    state: int
    leaves_lane: bool
    is_later: bool
    attempts: int
    deliveries: int
    alone_until: int


@dataclass
class Outcome:
    """What came of a run, which may have settled itself."""

    done: list[Row] = field(default_factory=list)
    left: Left | None = None
    is_lost: bool = False
    is_settled: bool = False
    calls: list[tuple[str, int]] = field(default_factory=list)


class OutboxModel:
    """What there is in an outbox, and what becomes of it."""

    def __init__(self, handlers: Iterable[Handler], *, keeps: bool) -> None:
        self.handlers = {it.name: it for it in handlers}
        self.keeps = keeps
        self.events: list[Event] = []
        self.removed: list[Event] = []
        self.deliveries: dict[tuple[str, int], Delivery] = {}
        self.effects: Counter[int] = Counter()
        """How often the transactional handler has written each number."""
        self.settled: dict[tuple[str, str], list[int]] = {}
        """The events of each lane in the order in which they were settled."""
        self.handled: Counter[tuple[str, int]] = Counter()

    # Events

    def commit(self, events: Iterable[Event]) -> list[Event]:
        """Enter committed events; return those whose ids are new."""
        known = {it.id for it in self.events}
        fresh = []
        for it in events:
            if it.id not in known:
                known.add(it.id)
                self.events.append(it)
                fresh.append(it)
        return fresh

    def announce(self, names: Iterable[str], version_of: Mapping[str, int]) -> None:
        for name in names:
            handler = self.handlers[name]
            if not handler.is_listening:
                for it in self.events:
                    if it.name == handler.event and it.state == "aside":
                        it.state = "new"
            handler.version = max(handler.version, version_of[handler.event])
            handler.is_retired = False

    def new_events(self) -> list[Event]:
        return [it for it in self.events if it.state == "new"]

    def expand(self, locked: set[tuple[str, int]]) -> None:
        """Make deliveries; a key waits while the tail of one of its lanes is locked."""
        waiting = set()
        for it in self.new_events():
            for handler in self.handlers.values():
                if handler.event == it.name and handler.is_listening and it.key is not None:
                    lane = self.lane(handler, it.key)
                    if lane and (handler.name, lane[-1].seq) in locked:
                        waiting.add(it.key)
        for it in self.new_events():
            if it.key in waiting:
                continue
            listening = [
                handler
                for handler in self.handlers.values()
                if handler.event == it.name and handler.is_listening
            ]
            it.state = "expanded" if listening else "aside"
            for handler in listening:
                if handler.sender in (None, it.sender):
                    lane = it.key if handler.is_keyed else None
                    is_parked = lane is not None and bool(self.lane(handler, lane))
                    self.deliveries[handler.name, it.seq] = Delivery(
                        it, handler, lane, PARKED if is_parked else HEAD, it.is_delayed
                    )

    def tails(self) -> set[tuple[str, int]]:
        """Return the last delivery of each lane that expanding would lengthen."""
        found = set()
        for it in self.new_events():
            for handler in self.handlers.values():
                if handler.event == it.name and handler.is_listening and it.key is not None:
                    found |= {(handler.name, last.seq) for last in self.lane(handler, it.key)[-1:]}
        return found

    # Lanes

    def lane(self, handler: Handler, key: str) -> list[Delivery]:
        found = [it for it in self.deliveries.values() if it.handler is handler and it.lane == key]
        return sorted(found, key=lambda it: it.seq)

    def heads(
        self, handler: Handler, version: int, *, ahead: bool, locked: set[tuple[str, int]]
    ) -> list[Delivery]:
        """Return what a worker may claim."""
        if handler.is_paused or handler.is_retired:
            return []
        return [
            it
            for it in self.deliveries.values()
            if it.handler is handler
            and it.state == HEAD
            and it.event.version <= version
            and (ahead or not it.is_later)
            and (handler.name, it.seq) not in locked
        ]

    def claim(self, head: Delivery, token: int, version: int, *, ahead: bool) -> ClaimedRun:
        """Lease a run, and return what must be in it."""
        behind: list[Delivery] = []
        is_alone = head.deliveries > 0 or head.alone_until >= head.seq or head.handler.is_single
        if head.lane is not None and not is_alone:
            lane = [it for it in self.lane(head.handler, head.lane) if it.seq > head.seq]
            for it in lane[: LONGEST_RUN - 1]:
                if (it.is_later and not ahead) or it.event.version > version:
                    break
                behind.append(it)
        head.token, head.is_later = token, True
        head.deliveries += 1
        head.alone_until = max(head.alone_until, *[it.seq for it in behind], 0)
        rows = [Row(head, head.attempts, head.deliveries, head.alone_until)]
        rows += [Row(it, it.attempts, it.deliveries, 0) for it in behind]
        return ClaimedRun(head.handler, token, rows)

    def renew(self, token: int) -> None:
        """Lengthen the leases of one claim."""
        for it in self.deliveries.values():
            if it.state == HEAD and it.token == token:
                it.is_later = True

    def promote(self, handler: Handler, key: str, after: int, alone_until: int) -> None:
        behind = [it for it in self.lane(handler, key) if it.seq > after]
        if behind and behind[0].state == PARKED:
            behind[0].state, behind[0].alone_until = HEAD, alone_until

    # Calling and settling

    def call(self, run: ClaimedRun, acts: Mapping[int, str]) -> Outcome:
        """Return what comes of a run whose handler acts so, by the numbers of the events."""
        outcome, handler, is_slow = Outcome(), run.handler, False
        for row in run.rows:
            number = row.delivery.event.number
            if run.is_over:
                return Outcome(is_lost=True, calls=outcome.calls)
            if outcome.done and is_slow:
                outcome.left = self.given_back(run, row, is_later=False)
                return outcome
            if row.deliveries > handler.attempts:
                outcome.left = self._failed(row, is_dead=True, is_later=False, counts=False)
                return outcome
            if handler.skips and number % handler.skips == 0 and row.attempts == 0:
                outcome.done.append(row)
                continue
            outcome.calls.append((handler.name, number))
            act = acts.get(number, "ok")
            is_slow = is_slow or act == "slow"
            run.is_over = act == "too slow"
            if act in {"fail", "give up", "later", "now"}:
                is_dead = act == "give up" or _attempt(row) >= handler.attempts
                is_later = {"later": True, "now": False}.get(act, handler.wait and not is_dead)
                outcome.left = self._failed(row, is_dead=is_dead, is_later=is_later, counts=True)
                return outcome
            outcome.done.append(row)
            if handler.is_single:
                outcome.is_lost = not self.is_held(run)
                if not outcome.is_lost:
                    self.settle(run, outcome)
                    self.effects[number] += 1
                outcome.is_settled = True
                return outcome
        return outcome

    def _failed(self, row: Row, *, is_dead: bool, is_later: bool, counts: bool) -> Left:
        return Left(
            row,
            DEAD if is_dead else HEAD,
            leaves_lane=is_dead and row.delivery.handler.goes_on,
            is_later=is_later,
            attempts=_attempt(row) - (not counts),
            deliveries=max(1, row.deliveries),
            alone_until=row.alone_until,
        )

    def given_back(self, run: ClaimedRun, row: Row, *, is_later: bool) -> Left:
        deliveries = row.deliveries - (row is run.rows[0])
        return Left(row, HEAD, False, is_later, row.attempts, deliveries, row.alone_until)

    def timed_out(self, run: ClaimedRun) -> Left:
        row, handler = run.rows[0], run.handler
        is_dead = _attempt(row) >= handler.attempts
        return self._failed(
            row, is_dead=is_dead, is_later=handler.wait and not is_dead, counts=True
        )

    def is_held(self, run: ClaimedRun) -> bool:
        """Whether the lease is still that of this run."""
        head = run.rows[0].delivery
        known = self.deliveries.get((run.handler.name, head.seq))
        return known is head and head.state == HEAD and head.token == run.token

    def settle(self, run: ClaimedRun, outcome: Outcome) -> None:
        """Write down what came of a run whose lease is held."""
        first, lane, left = run.rows[0], run.rows[0].delivery.lane, outcome.left
        for row in outcome.done:
            self._finish(row.delivery)
        if left is not None:
            it = left.row.delivery
            it.state, it.is_later, it.token = left.state, left.is_later, None
            it.attempts, it.deliveries = left.attempts, left.deliveries
            it.alone_until = left.alone_until
            if left.leaves_lane:
                it.lane = None
            elif it.lane is not None:
                return  # it is the head now
        last = outcome.done[-1].delivery if left is None else left.row.delivery
        if lane is not None:
            alone_until = first.alone_until if len(run.rows) == 1 else 0
            self.promote(run.handler, lane, last.seq, alone_until)

    def _finish(self, it: Delivery) -> None:
        self.handled[it.handler.name, it.event.number] += 1
        if it.lane is not None:
            self.settled.setdefault((it.handler.name, it.lane), []).append(it.seq)
        it.state, it.lane, it.token = DONE, None, None
        if not self.keeps:
            del self.deliveries[it.handler.name, it.seq]

    def touched(self, run: ClaimedRun, outcome: Outcome) -> set[tuple[str, int]]:
        """Return the deliveries that settling a run locks, until its transaction ends."""
        rows = [run.rows[0], *outcome.done, *([] if outcome.left is None else [outcome.left.row])]
        seqs = {it.delivery.seq for it in rows}
        has_next = outcome.left is None or outcome.left.leaves_lane
        if has_next and run.rows[0].delivery.lane is not None:
            behind = [
                it.seq
                for it in self.lane(run.handler, run.rows[0].delivery.lane)
                if it.seq > max(seqs)
            ]
            seqs |= set(behind[:1])
        return {(run.handler.name, it) for it in seqs}

    # Mending

    def is_idle(self, it: Delivery) -> bool:
        """Whether it can be retried or discarded: dead, or a head that nobody has."""
        return it.state == DEAD or (it.state == HEAD and it.token is None)

    def retry(self, it: Delivery) -> None:
        it.state, it.is_later, it.attempts, it.deliveries = HEAD, False, 0, 0

    def discard(self, it: Delivery) -> None:
        del self.deliveries[it.handler.name, it.seq]
        if it.lane is not None:
            self.promote(it.handler, it.lane, it.seq, 0)

    def replay(self, event: Event, name: str | None) -> int:
        """Deliver again what is neither open nor yet to be delivered."""
        made = 0
        if event.state != "expanded":
            return 0
        event.is_kept = True
        for handler in self.handlers.values():
            if handler.event != event.name or not handler.is_listening:
                continue
            if name not in {None, handler.name}:
                continue
            known = self.deliveries.get((handler.name, event.seq))
            if known is None:
                self.deliveries[handler.name, event.seq] = Delivery(
                    event, handler, None, HEAD, is_later=False, replays=1
                )
            elif known.state in {DONE, DEAD}:
                self.retry(known)
                known.replays += 1
            else:
                continue
            made += 1
        return made

    def retire(self, handler: Handler) -> int:
        handler.is_retired = True
        gone = [
            key for key, it in self.deliveries.items() if it.handler is handler and it.state != DONE
        ]
        for key in gone:
            del self.deliveries[key]
        return len(gone)

    def purge(self) -> int:
        """Remove what was handled, and events without deliveries."""
        self.deliveries = {key: it for key, it in self.deliveries.items() if it.state != DONE}
        open_ = {it.event for it in self.deliveries.values()}
        gone = [
            it
            for it in self.events
            if it.state == "expanded" and not it.is_kept and it not in open_
        ]
        self.events = [it for it in self.events if it not in gone]
        self.removed += gone
        return len(gone)


def _attempt(row: Row) -> int:
    """Return which call it is; those that have ended their process count, too."""
    return max(row.attempts + 1, row.deliveries)
