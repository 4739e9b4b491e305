"""What `docs/reference/guarantees/durable.md` promises of the outbox, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar
from uuid import UUID, uuid4

import pytest
from sqlalchemy import create_engine, event, text, update
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateSchema, DropSchema

from madcrow_events import BaseEventContext, SignalRegistry, current_event, event_scope
from madcrow_events.bridge import MemoryBridge, MemoryBroker
from madcrow_events.outbox import (
    CloudEvent,
    GiveUp,
    NotSerialisableError,
    Outbox,
    Retry,
    RetryLater,
    Worker,
)
from madcrow_events.testing import DrainReport, drain_outbox
from support.outboxes import lines_of, postgres_url, sqlite_engine, wait_for

CANARY = "hunter2"


class OrderPlaced(BaseEventContext):
    number: int
    customer: str = "nobody"


class Shop:
    """An outbox in a database, and what its handlers have noted."""

    def __init__(self, engine, schema):
        self.engine = engine
        self.schema = schema
        self.signals = SignalRegistry()
        self.heard = []
        self.order = self.signals.signal("order_placed", context=OrderPlaced, key="customer")
        self.lost = self.signals.signal("order_lost", context=OrderPlacedToo)
        self.outbox = Outbox("/shop", signals=self.signals, schema=schema)
        self.outbox.metadata.create_all(engine)
        prefix = "" if schema is None else f'"{schema}".'
        self.notes = f"{prefix}notes"
        with engine.begin() as connection:
            connection.execute(text(f"CREATE TABLE {self.notes} (number INTEGER)"))

    def commit(self, *contexts, **options):
        """Emit events in a transaction of their own; return their emissions."""
        with Session(self.engine) as session:
            emissions = [self.outbox.emit(session, it, **options) for it in contexts]
            session.commit()
        return emissions

    def work(self):
        """Handle what is due."""
        Worker(self.outbox, self.engine).run(once=True)

    def noted(self):
        """Return what is in the table of notes."""
        with self.engine.connect() as connection:
            return [*connection.execute(text(f"SELECT number FROM {self.notes}")).scalars()]  # noqa: S608

    @property
    def inspection(self):
        return self.outbox.inspect(self.engine)


class OrderPlacedToo(BaseEventContext):
    number: int


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request, tmp_path) -> Iterator[Shop]:
    """Return a shop on each database."""
    if request.param == "sqlite":
        engine = sqlite_engine(tmp_path)
        yield Shop(engine, None)
        engine.dispose()
        return
    engine, schema = create_engine(postgres_url()), f"promises_{uuid4().hex[:12]}"
    with engine.begin() as connection:
        connection.execute(CreateSchema(schema))
    try:
        yield Shop(engine, schema)
    finally:
        with engine.begin() as connection:
            connection.execute(DropSchema(schema, cascade=True))
        engine.dispose()


@pytest.mark.guarantee("D1")
def test_what_is_committed_reaches_each_handler_or_is_dead_and_visible(shop):
    """Each handler for itself."""

    @shop.outbox.on("order_placed", id="book")
    def book(context: OrderPlaced) -> None:
        shop.heard.append(context.number)

    @shop.outbox.on("order_placed", id="mail", retry=Retry(attempts=1), on_dead="continue")
    def mail(context: OrderPlaced) -> None:
        if context.number == 2:
            raise ConnectionError
        shop.heard.append(-context.number)

    emissions = shop.commit(*(OrderPlaced(number=it) for it in (1, 2, 3)))
    shop.work()
    assert sorted(shop.heard) == [-3, -1, 1, 2, 3]
    (dead,) = shop.inspection.dead()
    assert (dead.handler, dead.event_id) == ("mail", str(emissions[1].id))


@pytest.mark.guarantee("D2")
def test_what_is_rolled_back_is_heard_of_by_nobody(shop):
    """A savepoint takes its own events along; ordinary handlers are called after the commit."""
    shop.outbox.on("order_placed", id="book")(lambda number: shop.heard.append(number))
    shop.order.subscribe(lambda number: shop.heard.append(f"ordinary {number}"), id="ordinary")
    with Session(shop.engine) as session:
        shop.outbox.emit(session, OrderPlaced(number=1))
        session.rollback()
        shop.outbox.emit(session, OrderPlaced(number=2))
        savepoint = session.begin_nested()
        shop.outbox.emit(session, OrderPlaced(number=3))
        savepoint.rollback()
        assert shop.heard == []
        session.commit()
    assert shop.heard == ["ordinary 2"]
    shop.work()
    assert shop.heard == ["ordinary 2", 2]


@pytest.mark.guarantee("D3")
def test_what_cannot_be_written_makes_the_commit_fail(shop):
    """However deep its error was swallowed."""

    class Odd(BaseEventContext):
        amount: float

    shop.signals.signal("odd", context=Odd)
    with Session(shop.engine) as session:
        session.execute(text(f"INSERT INTO {shop.notes} VALUES (1)"))  # noqa: S608
        with pytest.raises(NotSerialisableError):
            shop.outbox.emit(session, Odd(amount=float("nan")))
        with pytest.raises(NotSerialisableError):
            session.commit()
    assert shop.noted() == []


@pytest.mark.guarantee("D4")
def test_a_handler_that_takes_the_session_has_its_effect_exactly_once(shop):
    """Another one is called again until it has returned."""
    attempts = []

    @shop.outbox.on("order_placed", id="note")
    def note(context: OrderPlaced, session: Session) -> None:
        session.execute(text(f"INSERT INTO {shop.notes} VALUES ({context.number})"))  # noqa: S608
        if current_event().attempt < 3:
            raise ConnectionError

    @shop.outbox.on("order_placed", id="mail")
    def mail(context: OrderPlaced) -> None:
        attempts.append(current_event().attempt)
        if len(attempts) < 3:
            raise RetryLater(60)

    shop.commit(OrderPlaced(number=7))
    assert drain_outbox(shop.outbox, shop.engine, until_dead=True) == DrainReport(2, 0, 4)
    assert shop.noted() == [7]
    assert attempts == [1, 2, 3]


@pytest.mark.guarantee("D5")
def test_a_handler_gets_the_events_of_a_key_in_the_order_of_their_commits(shop):
    """Several workers share the keys; one that is dead holds up its own key only."""

    @shop.outbox.on("order_placed", id="book", retry=Retry(attempts=1))
    def book(context: OrderPlaced) -> None:
        if (context.customer, context.number) == ("ada", 5):
            raise GiveUp
        shop.heard.append((context.customer, context.number))

    workers = [Worker(shop.outbox, shop.engine, poll=0.05) for _ in range(3)]
    with workers[0], workers[1], workers[2]:
        for number in range(10):
            shop.commit(*(OrderPlaced(number=number, customer=it) for it in ("ada", "bob", "cy")))
        wait_for(lambda: len(shop.heard) == 25)
    for customer, count in (("ada", 5), ("bob", 10), ("cy", 10)):
        assert [it for who, it in shop.heard if who == customer] == [*range(count)]
    (blocked,) = shop.inspection.status().blocked
    assert (blocked.is_dead, blocked.waiting) == (True, 4)
    shop.inspection.discard(blocked.head)
    shop.work()
    assert [it for who, it in shop.heard if who == "ada"] == [0, 1, 2, 3, 4, 6, 7, 8, 9]


@pytest.mark.guarantee("D6")
def test_a_worker_that_was_paused_beyond_its_lease_cannot_settle(shop, caplog):
    """Another one has taken the delivery over."""
    delivery = shop.outbox.tables.delivery

    @shop.outbox.on("order_placed", id="book")
    def book(context: OrderPlaced) -> None:
        shop.heard.append(threading.current_thread().name)
        if len(shop.heard) == 1:
            with shop.engine.begin() as connection:
                connection.execute(update(delivery).values(due=0))  # the lease is over
            shop.work()
            assert shop.inspection.status().handlers[0].running == 0
            raise ConnectionError  # of which nothing is kept

    shop.commit(OrderPlaced(number=1))
    shop.work()
    assert len(shop.heard) == 2
    (status,) = shop.inspection.status().handlers
    assert (status.due, status.delayed, status.dead) == (0, 0, 0)
    assert any("was taken over by another worker" in it for it in lines_of(caplog))


@pytest.mark.guarantee("D7")
@pytest.mark.parametrize("sender", ["till-3", 7, UUID(int=5), None])
def test_what_tells_events_apart_survives(shop, sender):
    """The ids of an event, the fields of its scope, and its sender."""

    @shop.outbox.on("order_placed", id="book")
    def book(sender, context: OrderPlaced) -> None:
        shop.heard.append((sender, context, current_event()))
        shop.heard.append(shop.lost.emit(OrderPlacedToo(number=1)))

    @shop.lost.on()
    def emit_within(context: OrderPlacedToo) -> None:
        if context.number == 0:
            shop.heard.extend(shop.commit(OrderPlaced(number=1), sender=sender))

    with event_scope(request_id="r-1"):
        cause = shop.lost.emit(OrderPlacedToo(number=0))
    emission = shop.heard.pop()
    shop.work()
    (heard, context, delivery), nested = shop.heard
    assert heard == (shop.order if sender is None else sender)
    assert type(heard) is type(shop.order if sender is None else sender)
    assert context.request_id == nested.context.request_id == "r-1"
    assert delivery.id == nested.causation_id == emission.id
    assert (delivery.causation_id, delivery.correlation_id) == (cause.id, cause.correlation_id)
    assert nested.correlation_id == cause.correlation_id


@pytest.mark.guarantee("D8")
def test_dead_deliveries_say_where_and_are_retried_discarded_and_redacted(shop):
    """In groups of the exception and the place."""
    broken = [True]

    @shop.outbox.on("order_placed", id="mail", retry=Retry(attempts=3, wait_jitter=0.5))
    def mail(context: OrderPlaced) -> None:
        if broken:
            raise ConnectionError(CANARY)
        shop.heard.append(context.number)

    emissions = shop.commit(*(OrderPlaced(number=it, customer=str(it)) for it in range(4)))
    report = drain_outbox(shop.outbox, shop.engine, until_dead=True)
    assert report == DrainReport(done=0, dead=4, retried=8)
    (group,) = shop.inspection.dead_groups()
    assert (group.handler, group.count) == ("mail", 4)
    assert group.group.startswith("ConnectionError in ")
    assert "test_promises:" in group.group
    first, second, third, fourth = shop.inspection.dead(group.group)
    assert (first.attempts, first.state) == (3, "dead")
    assert 0 <= first.error_age < 60
    broken.clear()
    assert shop.inspection.retry(first.id, second.id) == 2
    assert shop.inspection.discard(third.id) == 1
    assert shop.inspection.redact(emissions[3].id) == 1
    shop.inspection.retry(fourth.id)
    shop.work()
    assert sorted(shop.heard) == [0, 1]
    (redacted,) = shop.inspection.dead()
    assert redacted.error_type == "MalformedPayloadError"


@pytest.mark.guarantee("D10")
def test_what_nobody_knows_waits_and_is_reported(shop):
    """An event without a handler, and an event of a newer version."""

    class Newer(BaseEventContext):
        event_version: ClassVar[int] = 2
        number: int

    newer = SignalRegistry()
    newer.signal("order_placed", context=Newer)
    outbox = Outbox("/shop", signals=newer, schema=shop.schema)
    with Session(shop.engine) as session:
        outbox.emit(session, Newer(number=2))
        session.commit()
    shop.commit(OrderPlacedToo(number=1))
    shop.outbox.on("order_placed", id="book")(lambda number: shop.heard.append(number))
    shop.work()
    status = shop.inspection.status()
    assert [(it.event, it.count) for it in status.set_aside] == [("order_lost", 1)]
    assert [it.unknown for it in status.handlers] == [1]
    assert shop.heard == []
    shop.outbox.on("order_lost", id="lost")(lambda number: shop.heard.append(-number))
    outbox.on("order_placed", id="book")(lambda number: shop.heard.append(number))
    Worker(outbox, shop.engine).run(once=True)
    shop.work()
    assert shop.heard == [2, -1]


class Market(MemoryBroker):
    """A broker that notes what is published."""

    def __init__(self):
        super().__init__()
        self.published = []

    def publish(self, topic, headers, body):
        self.published.append((headers["ce-source"], headers["ce-type"], headers["ce-id"]))
        super().publish(topic, headers, body)

    def offer(self, number, customer="ada", *, source="/till", id_=None, body=None):
        """Publish an order of another service."""
        data = f'{{"number": {number}, "customer": "{customer}"}}'
        event = CloudEvent(
            id=id_ or f"e-{number}",
            source=source,
            type="order_placed",
            data=(data if body is None else body).encode(),
        )
        self.publish("madcrow_events", *event.binary())


@pytest.fixture
def market(shop):
    """Return the broker from which the shop takes in orders, and to which it sends them."""
    market = Market()
    bridge = MemoryBridge(shop.outbox, market, consumer="shop")
    bridge.incoming("order_placed", sources=("/till", "/stall"))
    bridge.outgoing("order_placed")

    @shop.outbox.on("order_placed", id="book", retry=Retry(attempts=2))
    def book(context: OrderPlaced) -> None:
        shop.heard.append(context.number)

    return market


@contextmanager
def failing_commits_of_intake(dialect, monkeypatch):
    """Let each commit of what was taken in fail; give the commits that were tried."""
    tried = []
    commit = dialect.do_commit

    def see(_cursor, statement, _parameters, context):
        if "into" in statement and "madcrow_inbox" in statement:
            context.root_connection.info["takes in"] = True

    def fail(connection):
        if connection.info.pop("takes in", False):
            tried.append(connection)
            raise ConnectionError
        commit(connection)

    event.listen(dialect, "do_execute", see)
    with monkeypatch.context() as patch:
        patch.setattr(dialect, "do_commit", fail)
        yield tried
    event.remove(dialect, "do_execute", see)


@pytest.mark.guarantee("D11")
def test_what_comes_in_is_acknowledged_only_after_its_commit(shop, market, monkeypatch):
    """As long as the commit fails, the broker delivers it again; then it is handled once."""
    with Worker(shop.outbox, shop.engine, poll=0.05):
        with failing_commits_of_intake(shop.engine.dialect, monkeypatch) as tried:
            market.offer(1)
            wait_for(lambda: tried)
            assert shop.heard == []
        wait_for(lambda: shop.heard)
        market.offer(2)
        wait_for(lambda: 2 in shop.heard)
    assert shop.heard == [1, 2]


@pytest.mark.guarantee("D11")
def test_an_event_is_its_source_and_its_id(shop, market):
    """However often it comes; two services may give the same id."""
    for _ in range(2):
        market.offer(1, id_="same")
    drain_outbox(shop.outbox, shop.engine)
    market.offer(1, id_="same")
    market.offer(2, id_="same", source="/stall")
    drain_outbox(shop.outbox, shop.engine)
    assert shop.heard == [1, 2]


@pytest.mark.guarantee("D11")
def test_poison_is_kept_and_blocks_nobody(shop, market, caplog):
    """What cannot be taken in stays at the broker; what cannot be read becomes a dead delivery."""
    market.offer(1, body="no JSON")
    market.offer(2, source="/elsewhere")
    market.offer(3, body='{"customer": "ada"}')
    market.offer(4)
    drain_outbox(shop.outbox, shop.engine, until_dead=True)
    assert shop.heard == [4]
    (dead,) = shop.inspection.dead()
    assert (dead.handler, dead.source, dead.error_type) == (
        "book",
        "/till",
        "UnreadablePayloadError",
    )
    refused = [it for it in lines_of(caplog) if "refuses message" in it]
    assert len(refused) == 2
    shop.inspection.retry(dead.id)
    drain_outbox(shop.outbox, shop.engine, until_dead=True)
    assert len(shop.inspection.dead()) == 1


@pytest.mark.guarantee("D11")
def test_only_events_of_a_service_itself_are_sent(shop, market):
    """What was taken in is not sent on, and what comes back is not taken in."""
    market.offer(1)
    (emission,) = shop.commit(OrderPlaced(number=2))
    for _ in range(2):
        drain_outbox(shop.outbox, shop.engine)
    assert sorted(shop.heard) == [1, 2]
    assert market.published == [
        ("/till", "order_placed", "e-1"),
        ("/shop", "order_placed", str(emission.id)),
    ]


@pytest.mark.guarantee("D12")
def test_neither_the_log_nor_a_stored_error_shows_a_value(shop, caplog):
    """Values are in the payload only."""

    @shop.outbox.on("order_placed", id="mail", retry=Retry(attempts=2, wait_initial=0))
    def mail(context: OrderPlaced) -> None:
        raise ValueError(context.customer)

    shop.commit(OrderPlaced(number=1, customer=CANARY))
    drain_outbox(shop.outbox, shop.engine, until_dead=True)
    (dead,) = shop.inspection.dead()
    told = [*lines_of(caplog, 0), str(dead), str(shop.inspection.status())]
    with shop.engine.connect() as connection:
        delivery = shop.outbox.tables.delivery
        rows = connection.execute(delivery.select()).mappings().all()
    told += [str({name: it for name, it in row.items() if name != "key"}) for row in rows]
    assert len(told) > 4
    assert [it for it in told if CANARY in it] == []
