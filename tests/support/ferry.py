"""Two services with a broker between them, whose processes may be killed at any moment.

`count` says what was lost, doubled or out of order on the way from the one to the other.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import Table, select

from madcrow_events.bridge._intake import OutboxIntake, StoringIntake, settle
from madcrow_events.bridge._nats_receiver import Left
from madcrow_events.outbox._sweeping import Sweeping
from support.two_services import BROKERS, Bank, Service, Shop, broker_of


@dataclass
class Ferry:
    """Where the two services are, and what is wrong with the one that receives on purpose.

    Attributes:
        kind: the kind of the broker, one of `BROKERS`.
        url: the URL of the broker.
        folder: where the files of the services are.
        fault: the name of one of `FAULTS`, or "".
        lease: of the workers and bridges, in seconds.
        topic: of the bridges.
    """

    kind: str
    url: str
    folder: str
    fault: str = ""
    lease: float = 0.5
    topic: str = "ferry"
    shop: Shop = field(init=False)
    bank: Bank = field(init=False)

    def __post_init__(self) -> None:
        self.shop = Shop(*self._arguments())
        self.bank = Bank(*self._arguments())
        FAULTS[self.fault](self.bank)

    def _arguments(self) -> tuple[Any, ...]:
        return Path(self.folder), broker_of(self.kind, self.url), self.lease, self.topic

    @property
    def longest_pause(self) -> float:
        """How many seconds are enough for a process that was started to receive."""
        return 1.0 if self.kind == "rabbitmq" else 1.0 + 2 * self.lease

    def wait_for_arrivals(self, seconds: float = 5.0) -> None:
        """Wait until something is taken in, for so many seconds at most."""
        end, before = time.monotonic() + seconds, self.bank.last_arrival
        while self.bank.last_arrival == before and time.monotonic() < end:
            time.sleep(0.01)

    @property
    def arguments(self) -> dict[str, Any]:
        """What a process needs to make the same ferry."""
        names = ("kind", "url", "folder", "fault", "lease", "topic")
        return {name: vars(self)[name] for name in names}


@contextmanager
def a_ferry(kind: str, url: str, folder: Path, **options: Any) -> Iterator[Ferry]:
    """Yield a ferry whose tables are empty."""
    ferry = Ferry(kind, url, str(folder), **options)
    services = (ferry.shop, ferry.bank)
    for it in services:
        it.create()
    with ferry.bank.worker():
        pass  # a queue of RabbitMQ hears only of what is published after it was made
    try:
        yield ferry
    finally:
        for it in services:
            it.engine.dispose()


# The processes


def produce(arguments: dict[str, Any], name: str) -> None:
    """Emit, until it is killed."""
    shop = Ferry(**arguments).shop
    chance = random.Random(name)  # noqa: S311  # nobody needs to guess it
    while True:
        shop.emit_some(name, chance, chance.randrange(1, 4))
        time.sleep(chance.uniform(0, 0.03))


def send(arguments: dict[str, Any]) -> None:
    """Be the worker of the shop, until SIGTERM."""
    _work(Ferry(**arguments).shop)


def receive(arguments: dict[str, Any]) -> None:
    """Be the worker of the bank, until SIGTERM."""
    _work(Ferry(**arguments).bank)


def _work(service: Service) -> None:
    logging.disable()
    service.worker().run()


def warm_up() -> None:
    """Do what each process would do first, in the one that is the parent of all."""
    for kind in BROKERS:
        Ferry(kind, f"{kind}://nowhere", "nowhere")


# What is wrong on purpose, or slow

PAUSE = 0.05  # seconds


class _Tardy(StoringIntake):
    """Takes its time between the commit and the acknowledgement."""

    async def take_in(self, messages: Sequence[Any]) -> None:
        refusals = await asyncio.to_thread(self._intake.store, messages, self._access)
        await asyncio.sleep(PAUSE)
        await settle(messages, refusals, self._intake.consumer)


class _Hasty(StoringIntake):
    """Acknowledges before the commit."""

    async def take_in(self, messages: Sequence[Any]) -> None:
        await settle(messages, [None] * len(messages), self._intake.consumer)
        await asyncio.sleep(PAUSE)
        await asyncio.to_thread(self._intake.store, messages, self._access)


class _Forgetful(OutboxIntake):
    """Notes nothing by which an event would be known when it comes again."""

    def _judge(self, message: Any) -> Any:
        received: Any = super()._judge(message)
        return received._replace(note=received.note._replace(event_id=str(uuid4())))


class _Sweeping(Sweeping):
    """Removes what was handled at once: as long as it is there, it is not written again."""

    is_due = True


def _with_intake(
    intake: type[OutboxIntake], storing: type[StoringIntake]
) -> Callable[[Bank], None]:
    def use(bank: Bank) -> None:
        bridge = bank.bridge
        bridge._make_intake = lambda engine: storing(  # type: ignore[method-assign]
            intake(bank.outbox, bridge._incoming, bridge.consumer), engine
        )

    return use


def _forget(bank: Bank) -> None:
    _with_intake(_Forgetful, _Tardy)(bank)
    bank.outbox._sweeping = lambda statements: _Sweeping(  # type: ignore[method-assign]
        statements, bank.outbox._keeping
    )


def _go_on_at_once(bank: Bank) -> None:
    """Receive without waiting for the leases of what another process has left."""
    _with_intake(OutboxIntake, _Tardy)(bank)
    made = bank.bridge._transport

    def transport() -> Any:
        transport = made()
        transport._stand_by = lambda _: asyncio.sleep(0.05, Left(0, 0))
        return transport

    bank.bridge._transport = transport  # type: ignore[method-assign]


FAULTS: dict[str, Callable[[Bank], None]] = {
    "": lambda _: None,
    "acknowledged late": _with_intake(OutboxIntake, _Tardy),
    "acknowledged before the commit": _with_intake(OutboxIntake, _Hasty),
    "no note in the inbox": _forget,
    "no wait for leases": _go_on_at_once,
}


# What came of it


class Counts(NamedTuple):
    """What was committed, and what came of it.

    Attributes:
        events: the events that were committed.
        again: how often an event was carried again, and left out by the inbox, which is no fault.
        lost: the events that were not booked.
        doubled: the events that were taken in twice, or booked twice.
        disorder: the events that were taken in after a later one of their account.
        late: the events that were booked after a later one of their account.
        stuck: what is open at the end, on both sides.
        dead: what is dead, on both sides.
    """

    events: int
    again: int
    lost: int
    doubled: int
    disorder: int
    late: int
    stuck: int
    dead: int

    @property
    def faults(self) -> tuple[int, ...]:
        """All that must be zero."""
        return self.lost, self.doubled, self.disorder, self.late, self.stuck, self.dead

    def __str__(self) -> str:
        return ", ".join(f"{value} {name}" for name, value in self._asdict().items())


def drain(ferry: Ferry) -> None:
    """Have last workers do what is left, as long as they get on."""
    with ferry.shop.worker(), ferry.bank.worker():
        _wait_for_all(ferry, patience=3.0 if ferry.fault else 20.0)
        time.sleep(ferry.lease + 1.0)  # for what is delivered again


def _wait_for_all(ferry: Ferry, patience: float) -> None:
    seen, last = None, time.monotonic()
    while time.monotonic() < last + patience:
        now = count(ferry)
        if not (now.lost or now.stuck):
            return
        if now != seen:
            seen, last = now, time.monotonic()
        time.sleep(0.2)


def count(ferry: Ferry) -> Counts:
    """Count what came of all that was committed."""
    shop, bank = ferry.shop, ferry.bank
    with shop.engine.connect() as connection:
        emitted = connection.execute(select(shop.emitted).order_by(shop.emitted.c.id)).all()
    with bank.engine.connect() as connection:
        arrived = _marks(connection, bank.arrived, bank.arrived.c.seq)
        booked = _marks(connection, bank.booked, bank.booked.c.id)
        asked = connection.execute(select(bank.asked.c.event_id)).scalars().all()
    lanes = {it.mark: (it.account, it.id) for it in emitted}
    (shop_open, shop_dead), (bank_open, bank_dead) = shop.still_open(), bank.still_open()
    return Counts(
        events=len(emitted),
        again=len(asked) - len(set(asked)),
        lost=len(lanes.keys() - set(booked)),
        doubled=len(arrived) - len(set(arrived)) + len(booked) - len(set(booked)),
        disorder=_disorder(arrived, lanes),
        late=_disorder(booked, lanes),
        stuck=shop_open + bank_open,
        dead=shop_dead + bank_dead,
    )


def _marks(connection: Any, table: Table, order: Any) -> list[str]:
    return list(connection.execute(select(table.c.mark).order_by(order)).scalars())


def _disorder(marks: list[str], lanes: dict[str, tuple[str | None, int]]) -> int:
    """Count the marks that come first after a later one of their account."""
    last: Counter[str] = Counter()
    late = 0
    for mark in dict.fromkeys(marks):
        account, place = lanes[mark]
        if account is not None:
            late += place < last[account]
            last[account] = max(last[account], place)
    return late
