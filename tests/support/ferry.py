"""Two services with a broker between them, whose processes may be killed at any moment.

The shop moves money between a few accounts, and a bridge sends what it emits. Another bridge takes
it in at the bank, whose handler books it with its session. What was committed, taken in and booked
is written down with a mark where neither outbox has a hand in it. So `count` can say what was lost,
doubled or out of order.
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
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    func,
    select,
    text,
)
from sqlalchemy.orm import Session

from madcrow_events import BaseEventContext, SignalRegistry
from madcrow_events.bridge import Bridge
from madcrow_events.bridge._intake import OutboxIntake, StoringIntake, settle
from madcrow_events.outbox import Outbox, Worker
from madcrow_events.outbox._sweeping import Sweeping
from madcrow_events.outbox._tables import DEAD, NEW
from support.brokers import a_nats_server, a_rabbit_server, a_redis_server

BROKERS = {"nats": a_nats_server, "rabbitmq": a_rabbit_server, "redis": a_redis_server}
"""Each starts a server of its own."""


class Moved(BaseEventContext):
    """Money has moved on an account; the events of an account keep their order."""

    account: str
    mark: str


class Noted(BaseEventContext):
    """Something was noted; without an order."""

    mark: str


def broker_of(kind: str, url: str) -> Any:
    """Return a broker of FastStream that says little, and is quick to connect again."""
    if kind == "nats":
        from faststream.nats import NatsBroker

        return NatsBroker(url, logger=None, reconnect_time_wait=0.1)
    if kind == "redis":
        from faststream.redis import RedisBroker

        return RedisBroker(url, logger=None)
    from faststream.rabbit import RabbitBroker

    return RabbitBroker(url, logger=None, reconnect_interval=0.1)


class Service:
    """A service with an outbox in a file.

    Args:
        name: the name of the service.
        folder: where its file is.
        broker: the broker.
        lease: of its worker and of its bridge, in seconds.
    """

    def __init__(self, name: str, folder: Path, broker: Any, lease: float) -> None:
        self.lease = lease
        self._file = folder / f"{name}.db"
        signals = SignalRegistry()
        signals.signal("moved", context=Moved, key="account")
        signals.signal("noted", context=Noted)
        self.outbox = Outbox(f"/{name}", signals=signals)
        self.bridge = Bridge(self.outbox, broker, consumer=name, lease=lease)
        self.metadata = MetaData()

    @cached_property
    def engine(self) -> Engine:
        """An engine, whose file survives the process, but not the machine."""
        engine = create_engine(f"sqlite:///{self._file}", connect_args={"timeout": 60})
        event.listen(engine, "connect", _quickly)
        return engine

    def create(self) -> None:
        """Make the tables."""
        self.outbox.metadata.create_all(self.engine)
        self.metadata.create_all(self.engine)

    def worker(self) -> Worker:
        """Return a worker."""
        return Worker(self.outbox, self.engine, lease=self.lease, poll=0.05)

    def still_open(self) -> tuple[int, int]:
        """Return how much has not come to its end, and how much is dead."""
        tables = self.outbox.tables
        new = select(func.count()).where(tables.event.c.expanded == NEW)
        states = select(tables.delivery.c.state, func.count()).group_by(tables.delivery.c.state)
        with self.engine.connect() as connection:
            left = connection.execute(new).scalar_one()
            counts = {state: number for state, number in connection.execute(states)}
        dead = counts.pop(DEAD, 0)
        return left + sum(counts.values()), dead


def _quickly(connection: Any, _record: object) -> None:
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = off")


class Shop(Service):
    """Emits, and sends."""

    def __init__(self, folder: Path, broker: Any, lease: float) -> None:
        super().__init__("shop", folder, broker, lease)
        self.emitted = Table(
            "emitted",
            self.metadata,
            Column("id", Integer, primary_key=True),
            Column("mark", Text),
            Column("account", Text),
        )
        self.bridge.outgoing("moved")
        self.bridge.outgoing("noted")

    def emit(self, *contexts: Moved | Noted) -> None:
        """Emit events in one transaction, and write down that they were."""
        with Session(self.engine) as session:
            rows = [{"mark": it.mark, "account": getattr(it, "account", None)} for it in contexts]
            session.execute(self.emitted.insert(), rows)
            for context in contexts:
                self.outbox.emit(session, context)
            session.commit()

    def emit_some(self, name: str, chance: random.Random, number: int) -> None:
        """Emit so many events in one transaction, with the next marks of a producer."""
        self.emit(
            *(self._some(f"{name}:{chance.getrandbits(60):x}", chance) for _ in range(number))
        )

    def _some(self, mark: str, chance: random.Random) -> Moved | Noted:
        if chance.random() < 0.2:
            return Noted(mark=mark)
        return Moved(account=f"account-{chance.randrange(5)}", mark=mark)


class Bank(Service):
    """Takes in, and books."""

    def __init__(self, folder: Path, broker: Any, lease: float, fault: str) -> None:
        super().__init__("bank", folder, broker, lease)
        self.arrived = Table(
            "arrived",
            self.metadata,
            Column("seq", Integer, primary_key=True, autoincrement=False),
            Column("mark", Text),
        )
        self.asked = Table(
            "asked",
            self.metadata,
            Column("id", Integer, primary_key=True),
            Column("event_id", Text),
        )
        self.booked = Table(
            "booked", self.metadata, Column("id", Integer, primary_key=True), Column("mark", Text)
        )
        self.bridge.incoming("moved", sources=("/shop",))
        self.bridge.incoming("noted", sources=("/shop",))
        for name, model in (("moved", Moved), ("noted", Noted)):
            self.outbox.on(name, id=f"book-{name}")(self._handler_for(model))
        FAULTS[fault](self)

    def _handler_for(self, model: type[BaseEventContext]) -> Callable[..., None]:
        def book(context: Any, session: Session) -> None:
            session.execute(self.booked.insert(), {"mark": context.mark})

        book.__annotations__ = {"context": model, "session": Session}
        return book

    def create(self) -> None:
        """Make the tables, and what notes each row of the outbox, which the sweeper removes."""
        super().create()
        triggers = (
            "create trigger arrivals after insert on madcrow_event begin "
            "insert into arrived values (new.seq, json_extract(new.payload, '$.mark')); end",
            # Before the insert, also of what is there already, and therefore left out.
            "create trigger questions before insert on madcrow_inbox begin "
            "insert into asked (event_id) values (new.event_id); end",
        )
        with self.engine.begin() as connection:
            for trigger in triggers:
                connection.execute(text(trigger))


@dataclass
class Ferry:
    """Where the two services are, and what is wrong with the one that receives on purpose.

    Attributes:
        kind: the kind of the broker, one of `BROKERS`.
        url: the URL of the broker.
        folder: where the files of the services are.
        fault: the name of one of `FAULTS`, or "".
        lease: of the workers and bridges, in seconds.
    """

    kind: str
    url: str
    folder: str
    fault: str = ""
    lease: float = 0.5
    shop: Shop = field(init=False)
    bank: Bank = field(init=False)

    def __post_init__(self) -> None:
        folder = Path(self.folder)
        self.shop = Shop(folder, broker_of(self.kind, self.url), self.lease)
        self.bank = Bank(folder, broker_of(self.kind, self.url), self.lease, self.fault)

    @property
    def longest_pause(self) -> float:
        """How many seconds are enough for a process that was started to receive."""
        return 1.0 if self.kind == "rabbitmq" else 1.0 + 2 * self.lease

    @property
    def arguments(self) -> dict[str, Any]:
        """What a process needs to make the same ferry."""
        names = ("kind", "url", "folder", "fault", "lease")
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

    def _received(self, accepted: Any) -> Any:
        received = super()._received(accepted)
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
        transport._stand_by = lambda _: asyncio.sleep(0.05)
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
