"""Two services with a bridge, in files of their own.

The shop moves money between a few accounts, and sends what it emits. The bank takes it in, and a
handler books it with its session. What was committed, taken in and booked is written down with a
mark where neither outbox has a hand in it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

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
from madcrow_events.outbox import Outbox, Worker
from madcrow_events.outbox._tables import DEAD, NEW
from support.brokers import a_nats_server, a_rabbit_server, a_redis_server

__all__ = ["BROKERS", "Bank", "Moved", "Noted", "Service", "Shop", "broker_of"]

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
        topic: of its bridge.
    """

    def __init__(self, name: str, folder: Path, broker: Any, lease: float, topic: str) -> None:
        self.lease = lease
        self._file = folder / f"{name}.db"
        signals = SignalRegistry()
        signals.signal("moved", context=Moved, key="account")
        signals.signal("noted", context=Noted)
        self.outbox = Outbox(f"/{name}", signals=signals)
        self.bridge = Bridge(self.outbox, broker, consumer=name, lease=lease, topic=topic)
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
            counts = dict(connection.execute(states).all())
        dead = counts.pop(DEAD, 0)
        return left + sum(counts.values()), dead


def _quickly(connection: Any, _record: object) -> None:
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = off")


class Shop(Service):
    """Emits, and sends."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__("shop", *arguments)
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

    def __init__(self, *arguments: Any) -> None:
        super().__init__("bank", *arguments)
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

    def _handler_for(self, model: type[BaseEventContext]) -> Callable[..., None]:
        def book(context: Any, session: Session) -> None:
            session.execute(self.booked.insert(), {"mark": context.mark})

        book.__annotations__ = {"context": model, "session": Session}
        return book

    def create(self) -> None:
        """Make the tables, and what notes each row of the outbox, which the sweeper removes."""
        super().create()
        arrivals = (
            "create trigger arrivals after insert on madcrow_event begin "
            "insert into arrived values (new.seq, json_extract(new.payload, '$.mark')); end"
        )
        # Before the insert, also of what is there already, and therefore left out.
        questions = (
            "create trigger questions before insert on madcrow_inbox begin "
            "insert into asked (event_id) values (new.event_id); end"
        )
        with self.engine.begin() as connection:
            connection.execute(text(arrivals))
            connection.execute(text(questions))

    @property
    def last_arrival(self) -> int:
        """The place of what was taken in last; 0 if nothing was."""
        with self.engine.connect() as connection:
            return connection.execute(select(func.max(self.arrived.c.seq))).scalar_one() or 0

    @property
    def number_booked(self) -> int:
        """How many events were booked."""
        with self.engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(self.booked)).scalar_one()
