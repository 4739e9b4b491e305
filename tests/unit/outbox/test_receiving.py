"""Taking in what other services send: with a transaction, and once."""

from __future__ import annotations

import threading
from typing import Any, ClassVar
from uuid import UUID

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy import event as events_of
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from madcrow_events import BaseEventContext, SignalRegistry, current_event
from madcrow_events.exceptions import InvalidOptionError, UnknownEventError
from madcrow_events.outbox import (
    InvalidCloudEventError,
    NoTransactionError,
    NotSerialisableError,
    Outbox,
)
from madcrow_events.testing import DrainReport, drain_outbox
from support.incoming import EVERYTHING, noted, order_from, rows_of, take_in
from support.outboxes import Order, emit, keyed_outbox, wait_for


@pytest.fixture
def engine():
    """Return an engine of a database in memory."""
    engine = create_engine("sqlite://")
    yield engine
    engine.dispose()


def new_outbox(engine, **options) -> Outbox:
    outbox = keyed_outbox(**options)
    outbox.metadata.create_all(engine)
    return outbox


def handled_by(outbox: Outbox, name: str = "order") -> list[int]:
    """Return what a new durable handler notes of each event."""
    handled: list[int] = []

    @outbox.on(name, id=f"note {name}")
    def note(context: BaseEventContext) -> None:
        handled.append(context.number)

    return handled


# Once


def test_an_event_is_taken_in_once_however_often_it_is_sent(any_engine):
    """In one transaction or in several; it is the same if its source and its id are."""
    outbox = new_outbox(any_engine)
    handled = handled_by(outbox)
    first, other = order_from(number=1), order_from("/web", number=2)
    take_in(outbox, any_engine, first, other, first)
    take_in(outbox, any_engine, first)
    drain_outbox(outbox, any_engine)
    take_in(outbox, any_engine, first, order_from(id="2", number=3))
    drain_outbox(outbox, any_engine)
    assert handled == [1, 2, 3]
    assert noted(outbox, any_engine) == [("", "/till", "1"), ("", "/till", "2"), ("", "/web", "1")]


def test_what_two_take_in_at_the_same_time_is_handled_once(postgresql_engine):
    """The second waits for the commit of the first, and then has nothing to write."""
    outbox = new_outbox(postgresql_engine)
    handled, problems = handled_by(outbox), []

    def take_in_too():
        try:
            take_in(outbox, postgresql_engine, order_from(), order_from(id="2", number=2))
        except BaseException as error:
            problems.append(error)

    second = threading.Thread(target=take_in_too)

    @events_of.listens_for(postgresql_engine, "commit")
    def let_the_second_come(_connection):
        if second.ident is not None:
            return
        second.start()
        with postgresql_engine.connect() as other:
            waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            wait_for(lambda: other.execute(waiting).scalar_one())

    take_in(outbox, postgresql_engine, order_from())
    second.join()
    drain_outbox(outbox, postgresql_engine)
    assert (problems, sorted(handled)) == ([], [1, 2])


def test_an_event_of_this_service_is_left_out(engine):
    """It was written here before, and comes back from the broker."""
    outbox = new_outbox(engine)
    handled = handled_by(outbox)
    take_in(outbox, engine, order_from("/shop"), order_from("/shop", data=b"no JSON"))
    drain_outbox(outbox, engine)
    assert (handled, rows_of(outbox, engine), noted(outbox, engine)) == ([], [], [])


def test_it_is_noted_for_whom_an_event_was_taken_in(engine):
    """The same event is one event here, whoever has taken it in."""
    outbox = new_outbox(engine)
    handled = handled_by(outbox)
    for consumer in ("one", "two"):
        take_in(outbox, engine, order_from(), consumer=consumer)
    drain_outbox(outbox, engine)
    assert (handled, [it[0] for it in noted(outbox, engine)]) == ([1], ["one", "two"])


# With the transaction


def test_what_is_rolled_back_can_be_taken_in_later(any_engine):
    """A savepoint takes along what was taken in inside of it."""
    outbox = new_outbox(any_engine)
    handled = handled_by(outbox)
    with Session(any_engine) as session:
        outbox.receive(order_from(number=1), session)
        session.rollback()
        outbox.receive(order_from(id="2", number=2), session)
        savepoint = session.begin_nested()
        outbox.receive(order_from(id="3", number=3), session)
        savepoint.rollback()
        session.commit()
    drain_outbox(outbox, any_engine)
    assert handled == [2]
    take_in(outbox, any_engine, *(order_from(id=str(it), number=it) for it in (1, 2, 3)))
    drain_outbox(outbox, any_engine)
    assert handled == [2, 1, 3]


def test_a_connection_takes_in_as_a_session_does(engine):
    outbox = new_outbox(engine)
    handled = handled_by(outbox)
    with engine.begin() as connection:
        outbox.receive(order_from(), connection)
    drain_outbox(outbox, engine)
    assert handled == [1]


async def test_async_sessions_and_connections_take_in_too(tmp_path):
    outbox = keyed_outbox()
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'events.db'}")
    async with engine.begin() as connection:
        await connection.run_sync(outbox.metadata.create_all)
        outbox.receive(order_from(number=1), connection)
    async with AsyncSession(engine) as session:
        outbox.receive(order_from(id="2", number=2), session)
        await session.commit()
        outbox.receive(order_from(id="3", number=3), session)
    async with engine.connect() as connection:
        rows = (await connection.execute(text("SELECT payload FROM madcrow_event"))).scalars()
        assert list(rows) == ['{"number": 1}', '{"number": 2}']
    await engine.dispose()


def test_what_has_no_transaction_takes_nothing_in(engine):
    outbox = new_outbox(engine)
    with engine.connect() as connection, pytest.raises(NoTransactionError, match="begin one"):
        outbox.receive(order_from(), connection)
    with pytest.raises(TypeError, match="takes a Session"):
        outbox.receive(order_from(), engine)


@pytest.mark.parametrize("consumer", [None, 7, "x" * 65, "a\0b"])
def test_a_consumer_that_no_note_can_have_is_refused(engine, consumer):
    """At once, and not at the commit."""
    outbox = new_outbox(engine)
    with Session(engine) as session, pytest.raises(InvalidOptionError, match="up to 64 charac"):
        outbox.receive(order_from(), session, consumer=consumer)


def test_what_is_received_is_a_cloud_event(engine):
    """What a request brings has to be read first."""
    outbox = new_outbox(engine)
    with Session(engine) as session, pytest.raises(TypeError, match=r"CloudEvent\.read\(headers"):
        outbox.receive(b"{}", session)


def break_off(outbox, engine, monkeypatch):
    """Let an interrupt come once, just before the events are written."""
    statements = outbox._statements_for(engine)

    def interrupt(*_, **__):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(statements, "append", interrupt)


def refuse(_outbox, engine, _monkeypatch):
    """Let the database refuse the events."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE TRIGGER refuse BEFORE INSERT ON madcrow_event "
                "BEGIN SELECT RAISE(ABORT, 'full'); END"
            )
        )


@pytest.mark.parametrize(
    ("disturb", "error"), [(break_off, KeyboardInterrupt), (refuse, IntegrityError)]
)
def test_a_note_is_not_committed_without_its_event(engine, monkeypatch, disturb, error):
    """Else the event would be taken for one that was handled, however often it came again."""
    outbox = new_outbox(engine)
    disturb(outbox, engine, monkeypatch)
    with Session(engine) as session:
        outbox.receive(order_from(), session)
        with pytest.raises(error):
            session.commit()
        with pytest.raises(NotSerialisableError, match="nothing is committed"):
            session.commit()
    assert noted(outbox, engine) == []


def test_an_interrupt_between_events_that_are_emitted_needs_no_such_care(engine, monkeypatch):
    """The commit can be tried again, and writes them."""
    outbox = new_outbox(engine)
    break_off(outbox, engine, monkeypatch)
    with Session(engine) as session:
        outbox.emit(session, Order(number=1))
        with pytest.raises(KeyboardInterrupt):
            session.commit()
        session.commit()
    assert len(rows_of(outbox, engine)) == 1


# What is refused


def login_from_outside():
    return order_from(type="user_logged_in", data=b'{"user_id": 7, "username": "mallory"}')


def test_an_event_that_is_not_declared_is_refused(engine):
    """Also by a registry that declares what is used: others do not use it."""
    outbox = new_outbox(engine)
    loose = Outbox("/loose", signals=SignalRegistry(strict=False))
    with Session(engine) as session:
        for each in (outbox, loose):
            with pytest.raises(UnknownEventError, match="no event 'refund' is declared"):
                each.receive(order_from(type="refund"), session)
        outbox.receive(order_from(), session)
        session.commit()
    assert "refund" not in loose.signals
    assert len(rows_of(outbox, engine)) == 1


def test_an_event_of_this_package_comes_in_by_its_name_only(engine, signals):
    """Else everybody who may send could pretend that somebody has logged in."""
    outbox = Outbox("/shop")
    outbox.metadata.create_all(engine)
    with Session(engine) as session:
        with pytest.raises(UnknownEventError, match="write event='user_logged_in'"):
            outbox.receive(login_from_outside(), session)
        outbox.receive(login_from_outside(), session, event="user_logged_in")
        session.commit()
    assert [it.event for it in rows_of(outbox, engine)] == ["user_logged_in"]


@pytest.mark.parametrize("type_", ["refund", "unheard_of", "Order", "x" * 1500])
def test_an_event_that_is_another_one_than_it_must_be_is_refused(engine, type_):
    outbox = new_outbox(engine)
    outbox.signals.signal("refund")
    with Session(engine) as session:
        with pytest.raises(InvalidCloudEventError, match="the type is not order") as caught:
            outbox.receive(order_from(type=type_), session, event=Order)
        outbox.receive(order_from(), session, event="order")
        session.commit()
    assert caught.value.attribute == "type"
    assert [it.event for it in rows_of(outbox, engine)] == ["order"]


def test_an_event_that_must_be_one_of_nobody_is_an_error_here(engine):
    """It is the program that is wrong, not the message."""
    outbox = new_outbox(engine)
    with Session(engine) as session, pytest.raises(UnknownEventError, match="oder"):
        outbox.receive(order_from(), session, event="oder")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[1]",
        b"null",
        b'"text"',
        b"{'number': 1}",
        b'{"number": 1',
        b'{"customer": "\xff"}',
        b'{"customer": "\xed\xa0\x80"}',
        rb'{"customer": "\ud800"}',
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b'{"number": ' + b"9" * 5000 + b"}",
        '{"number": 1}'.encode("utf-16"),
    ],
    ids=lambda it: repr(it[:16]),
)
def test_data_that_is_no_json_object_is_refused(engine, data):
    """Without a word of what it is."""
    outbox = new_outbox(engine)
    with (
        Session(engine) as session,
        pytest.raises(InvalidCloudEventError, match=r"^the data is no JSON object: send") as caught,
    ):
        outbox.receive(order_from(data=data), session)
    assert caught.value.attribute == "data"


def test_data_that_is_json_by_chance_is_refused(engine):
    outbox = new_outbox(engine)
    as_text = order_from(attributes={"datacontenttype": "text/plain"})
    with (
        Session(engine) as session,
        pytest.raises(InvalidCloudEventError, match="datacontenttype application/json"),
    ):
        outbox.receive(as_text, session)


@pytest.mark.parametrize("text_", ["0", "-1", "32768", "1.0", "x", "", " 1", "²", "9" * 4000])
def test_a_version_that_is_none_is_refused(engine, text_):
    outbox = new_outbox(engine)
    with (
        Session(engine) as session,
        pytest.raises(InvalidCloudEventError, match="no number from 1 to 32767: send") as caught,
    ):
        outbox.receive(order_from(attributes={"eventversion": text_}), session)
    assert caught.value.attribute == "eventversion"


@pytest.mark.parametrize("name", ["source", "id", "type"])
def test_a_name_that_an_index_could_not_take_is_refused(engine, name):
    """By its bytes; one that just fits is taken in."""
    outbox = new_outbox(engine)
    event = order_from(**{name: "é" * 513})
    with pytest.raises(InvalidCloudEventError, match=f"the {name} is longer than 1024") as caught:
        outbox._received(event, outbox.signals["order"], "")
    assert caught.value.attribute == name


def test_the_longest_names_fit(any_engine):
    """Those of the source and the id, together with the longest name of a consumer."""
    outbox = new_outbox(any_engine)
    longest = order_from("é" * 512, "ü" * 512)
    take_in(outbox, any_engine, longest, longest, consumer="c" * 64)
    assert len(rows_of(outbox, any_engine)) == 1


# What a handler gets


def test_what_others_say_of_an_event_fills_nothing_in(engine):
    """It is under `origin`; the ids, the sender and the scope are this service's own."""
    outbox = new_outbox(engine)
    seen: list[Any] = []
    outbox.on("order", id="look")(lambda: seen.append(current_event()))
    take_in(outbox, engine, order_from(id="its own", attributes=EVERYTHING))
    take_in(outbox, engine, order_from(id=str(UUID(int=7))))
    emit(outbox, engine, Order(number=3))
    drain_outbox(outbox, engine)
    whole, plain, own = seen
    assert whole.origin == {**EVERYTHING, "source": "/till", "id": "its own", "type": "order"}
    assert plain.origin == {"source": "/till", "id": str(UUID(int=7)), "type": "order"}
    assert plain.id != UUID(int=7)
    for emission in (whole, plain):
        assert emission.correlation_id == emission.id
        assert (emission.causation_id, emission.sender) == (None, emission.signal)
        assert emission.context.request_id is None
    assert own.origin is None


def test_an_event_has_the_same_id_wherever_it_is_taken_in(engine):
    """Made of its source and its id there, by which it can be found."""
    outbox = new_outbox(engine)
    take_in(outbox, engine, order_from(), order_from("/web"))
    assert [it.event_id for it in rows_of(outbox, engine)] == [
        "e30e55ea-70e9-51ec-8f8b-7df501a0d72f",
        "8ae34306-65cc-5c7d-942a-f312cec1e2af",
    ]


def test_a_service_may_declare_less_than_the_event_has(engine):
    """What its model does not know is left out for the handler."""
    outbox = new_outbox(engine)
    seen: list[Any] = []
    outbox.on("order", id="look")(lambda: seen.append(current_event().context))
    take_in(outbox, engine, order_from(number=7, customer="a", price=1.5, lines=[{"n": 1}]))
    drain_outbox(outbox, engine)
    (context,) = seen
    assert (context.number, context.customer) == (7, "a")
    assert not hasattr(context, "price")


def test_an_event_may_come_by_an_earlier_name(engine):
    """Of a service that has not been deployed yet."""
    signals = SignalRegistry()
    signals.signal("order", context=Order, formerly="order_placed")
    outbox = Outbox("/shop", signals=signals)
    outbox.metadata.create_all(engine)
    handled = handled_by(outbox)
    take_in(outbox, engine, order_from(type="order_placed"))
    take_in(outbox, engine, order_from(id="2", number=2, type="order_placed"), event=Order)
    drain_outbox(outbox, engine)
    assert handled == [1, 2]


def test_what_is_taken_in_is_encoded_as_what_is_emitted(engine):
    outbox = new_outbox(engine, encode=lambda it: it[::-1], decode=lambda it: it[::-1])
    handled = handled_by(outbox)
    take_in(outbox, engine, order_from(number=7, customer="a"))
    (row,) = rows_of(outbox, engine)
    assert (row.payload[0], row.key) == ("}", "a")
    drain_outbox(outbox, engine)
    assert handled == [7]


# Order


class NewerOrder(Order):
    event_version: ClassVar[int] = 2


def keyed_by(key, engine, model: Any = Order) -> Outbox:
    signals = SignalRegistry()
    signals.signal("order", context=model, key=key)
    outbox = Outbox("/shop", signals=signals)
    outbox.metadata.create_all(engine)
    return outbox


V2 = {"eventversion": "2"}
KEYED = {"partitionkey": "theirs"}


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        (None, {"customer": "a", "attributes": KEYED}, None),
        ("customer", {"customer": "a", "attributes": KEYED}, "a"),
        ("customer", {}, "nobody"),
        (lambda context: context.customer.upper(), {"customer": "a"}, "A"),
        (lambda context: {}[context.customer], {"customer": "a"}, None),
        ("customer", {"customer": 7}, None),
        ("customer", {"customer": "x" * 513}, None),
        # Of a version that is not known here
        ("customer", {"customer": "a", "attributes": {**V2, **KEYED}}, "a"),
        ("customer", {"customer": 7, "attributes": V2}, "7"),
        ("customer", {"attributes": {**V2, **KEYED}}, "theirs"),
        ("customer", {"customer": ["a"], "attributes": V2}, None),
        ("customer", {"customer": "x" * 513, "attributes": V2}, None),
        ("customer", {"customer": "a\0", "attributes": V2}, None),
        ("customer", {"attributes": V2}, None),
        (lambda _: "never asked", {"customer": "a", "attributes": {**V2, **KEYED}}, "theirs"),
    ],
)
def test_the_ordering_key_is_that_of_the_signal_here(engine, key, given, expected):
    """If the context cannot be read, that of its fields, or the one the other service gives."""
    outbox = keyed_by(key, engine)
    take_in(outbox, engine, order_from(**given))
    assert [it.key for it in rows_of(outbox, engine)] == [expected]


def test_an_event_that_does_not_fit_is_kept_and_holds_up_nobody(any_engine):
    """Its delivery is dead, where people can see it; others of the same customer go on."""
    outbox = new_outbox(any_engine)
    handled = handled_by(outbox)
    bad = order_from(number="seven", customer="a")
    take_in(outbox, any_engine, bad, order_from(id="2", number=2, customer="a"))
    report = drain_outbox(outbox, any_engine, until_dead=True)
    assert (handled, report.dead) == ([2], 1)
    (dead,) = outbox.inspect(any_engine).dead()
    assert dead.error_type == "UnreadablePayloadError"


def test_an_event_of_a_newer_version_waits_with_those_behind_it(any_engine):
    """Until the code that knows it is deployed; other customers do not wait."""
    outbox = keyed_by("customer", any_engine)
    handled = handled_by(outbox)
    events = [
        order_from(id="1", number=1, customer="a", attributes=V2),
        order_from(id="2", number=2, customer="a"),
        order_from(id="3", number=3, customer="b"),
    ]
    take_in(outbox, any_engine, *events)
    drain_outbox(outbox, any_engine)
    assert handled == [3]
    newer = keyed_by("customer", any_engine, NewerOrder)
    newer.upcast("order", from_version=1)(lambda document: document)
    handled = handled_by(newer)
    drain_outbox(newer, any_engine)
    assert handled == [1, 2]


def test_an_event_without_a_handler_is_set_aside(engine):
    outbox = new_outbox(engine)
    take_in(outbox, engine, order_from())
    assert drain_outbox(outbox, engine) == DrainReport(0, 0, 0)
    handled = handled_by(outbox)
    drain_outbox(outbox, engine)
    assert handled == [1]
