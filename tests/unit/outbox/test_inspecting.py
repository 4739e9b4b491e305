"""Looking into an outbox, and mending what is stuck."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from madcrow_events.outbox import GiveUp, NotInOutboxError, Outbox, Retry
from madcrow_events.testing import drain_outbox
from support.outbox_steps import Steps
from support.outboxes import Order, emit, keyed_outbox

LATER = Retry(attempts=3, wait_initial=3600, wait_jitter=0)


@pytest.fixture
def engine(any_engine):
    return any_engine


def new_outbox(engine, **options) -> Outbox:
    outbox = keyed_outbox(**options)
    outbox.metadata.create_all(engine)
    return outbox


def give_up(number):
    raise GiveUp


def fail(number):
    raise LookupError


def count(engine, table):
    with engine.begin() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def test_the_status_of_an_empty_outbox(engine):
    """There is nothing, and no handler."""
    status = new_outbox(engine).inspect(engine).status()
    assert (status.new, status.oldest_new, status.handlers) == (0, 0.0, ())
    assert (status.set_aside, status.blocked) == ((), ())
    assert status.oldest_transaction >= 0.0


def test_the_status_counts_deliveries_by_what_they_wait_for(engine):
    """For a worker, for their time, in a worker's hands, behind another one, or for somebody."""
    outbox = new_outbox(engine)
    outbox.on("order", id="mail", retry=LATER)(lambda number: fail(number) if number > 8 else None)
    emit(outbox, engine, Order(number=1, customer="a"), Order(number=2, customer="a"))
    with Session(engine) as session:
        due = datetime.now(UTC) + timedelta(hours=1)
        outbox.emit(session, Order(number=3, customer="b"), not_before=due)
        outbox.emit(session, Order(number=4, customer="b"))
        session.commit()
    worker = Steps(outbox, engine)
    worker.claim()
    emit(outbox, engine, Order(number=5, customer="c"), Order(number=9, customer="d"))
    worker.expand()
    (mail,) = outbox.inspect(engine).status().handlers
    assert (mail.due, mail.delayed, mail.running, mail.parked, mail.dead) == (2, 1, 1, 2, 0)
    assert (mail.name, mail.event, mail.unknown) == ("mail", "order", 0)
    assert (mail.paused, mail.retired) == (False, False)
    assert 0.0 <= mail.oldest_due < 60.0
    assert 0.0 <= mail.seen < 60.0
    worker.work()
    (mail,) = outbox.inspect(engine).status().handlers
    assert (mail.due, mail.delayed) == (0, 2)


def test_the_status_tells_of_events_without_a_handler_and_of_new_ones(engine):
    """The former are set aside once somebody has looked."""
    outbox = new_outbox(engine)
    emit(outbox, engine, Order(number=1))
    new = outbox.inspect(engine).status()
    assert (new.new, new.set_aside) == (1, ())
    assert 0.0 <= new.oldest_new < 60.0
    Steps(outbox, engine).expand()
    status = outbox.inspect(engine).status()
    assert status.new == 0
    (waiting,) = status.set_aside
    assert (waiting.event, waiting.count) == ("order", 1)
    assert 0.0 <= waiting.oldest < 60.0


def test_the_status_names_the_keys_that_are_held_up(engine):
    """By a dead delivery or a delayed one, if anything waits behind it."""
    outbox = new_outbox(engine)

    @outbox.on("order", id="mail", retry=LATER)
    def mail(number):
        (give_up if number == 1 else fail)(number)

    for number, customer in enumerate("aabbc", 1):
        emit(outbox, engine, Order(number=number, customer=customer))
    Steps(outbox, engine).work()
    inspection = outbox.inspect(engine)
    dead, delayed = inspection.status().blocked
    assert (dead.handler, dead.is_dead, dead.waiting) == ("mail", True, 1)
    assert (delayed.handler, delayed.is_dead, delayed.waiting) == ("mail", False, 1)
    assert inspection.show(dead.head).state == "dead"
    assert inspection.show(delayed.head).state == "waiting"
    assert 0.0 <= dead.age < 60.0


def test_the_states_of_a_delivery(engine):
    """Each has a word, and no value of the event is shown."""
    outbox = new_outbox(engine, keep_done=timedelta(days=1))
    outbox.on("order", id="mail")(lambda number: None)
    (first, second) = emit(outbox, engine, Order(number=1), Order(number=2))
    worker = Steps(outbox, engine)
    (run,) = worker.claim(room=1)
    head, behind = (f"{it.event_seq}-{run.handler_id}" for it in run.rows)
    inspection = outbox.inspect(engine)
    shown = inspection.show(head)
    assert (shown.state, shown.handler, shown.event, shown.event_id) == (
        "running",
        "mail",
        "order",
        first,
    )
    assert (shown.source, shown.attempts, shown.deliveries) == ("/shop", 0, 1)
    assert (shown.error_type, shown.error_group, shown.error_age) == (None, None, 0.0)
    assert (inspection.show(behind).state, inspection.show(behind).event_id) == ("parked", second)
    worker.settle(worker.call(run))
    assert inspection.show(head).state == "done"


def test_dead_deliveries_are_grouped_by_what_was_raised_and_where(engine):
    """The largest group comes first; `dead` takes the name of one."""
    outbox = new_outbox(engine)

    @outbox.on("order", id="mail", on_dead="continue", retry=Retry(attempts=1))
    def mail(number):
        (give_up if number == 1 else fail)(number)

    emit(outbox, engine, *(Order(number=it) for it in (1, 2, 3)))
    drain_outbox(outbox, engine)
    inspection = outbox.inspect(engine)
    most, least = inspection.dead_groups()
    assert (most.handler, most.count, least.count) == ("mail", 2, 1)
    assert most.group.startswith("LookupError in ")
    assert most.group.endswith(" fail")
    assert len(inspection.dead()) == 3
    (record,) = inspection.dead(group=least.group)
    assert (record.state, record.attempts, record.error_type) == ("dead", 1, "GiveUp")
    assert 0.0 <= record.error_age < 60.0
    assert inspection.dead(group="other") == []


@pytest.mark.parametrize("id_", ["", "17", "17-", "-2", "a-b", "17-2-3", "17-2", "১-২"])
def test_a_delivery_that_is_not_there(engine, id_):
    """The error says what an id looks like."""
    inspection = new_outbox(engine).inspect(engine)
    with pytest.raises(NotInOutboxError, match="give its id, such as '17-2'"):
        inspection.show(id_)


def test_a_dead_delivery_that_is_retried_or_discarded_lets_its_key_go_on(engine):
    """Those behind it are handled after it, or without it."""
    outbox = new_outbox(engine)
    handled, broken = [], [1, 4]

    @outbox.on("order", id="mail", retry=Retry(attempts=1))
    def mail(number):
        if number in broken:
            raise LookupError
        handled.append(number)

    emit(outbox, engine, *(Order(number=it, customer="a") for it in (1, 2)))
    emit(outbox, engine, *(Order(number=it, customer="b") for it in (4, 5)))
    drain_outbox(outbox, engine)
    assert handled == []
    inspection = outbox.inspect(engine)
    first, fourth = inspection.dead()
    broken.clear()
    assert inspection.retry(first.id, fourth.id) == 2
    assert inspection.discard(fourth.id) == 1
    assert inspection.discard(fourth.id) == inspection.retry(fourth.id) == 0
    drain_outbox(outbox, engine)
    assert sorted(handled) == [1, 2, 5]


@pytest.mark.parametrize("mend", ["retry", "discard"])
def test_a_delivery_whose_worker_is_gone_is_retried_or_discarded(engine, mend):
    """Once its lease is over; before that, it is the worker's."""
    outbox = new_outbox(engine)
    outbox.on("order", id="mail")(lambda number: None)
    emit(outbox, engine, Order(number=1))
    (run,) = Steps(outbox, engine).claim()
    inspection = outbox.inspect(engine)
    id_ = f"{run.rows[0].event_seq}-{run.handler_id}"
    assert getattr(inspection, mend)(id_) == 0
    with engine.begin() as connection:
        connection.execute(update(outbox.tables.delivery).values(due=1))
    assert getattr(inspection, mend)(id_) == 1


def test_nothing_is_retried_or_discarded_without_an_id(engine):
    """So an empty list does no harm, nor does a delivery that a worker has."""
    outbox = new_outbox(engine)
    outbox.on("order", id="mail")(lambda number: None)
    emit(outbox, engine, Order(number=1))
    inspection = outbox.inspect(engine)
    assert inspection.retry() == inspection.discard() == 0
    (run,) = Steps(outbox, engine).claim()
    id_ = f"{run.rows[0].event_seq}-{run.handler_id}"
    assert inspection.retry(id_) == inspection.discard(id_) == 0


def test_a_replay_delivers_again_beside_the_order(engine):
    """To every handler or to one; what is open stays as it is."""
    outbox = new_outbox(engine, keep_done=timedelta(days=1))
    handled = []
    outbox.on("order", id="mail")(lambda number: handled.append(("mail", number)))
    outbox.on("order", id="book")(lambda number: handled.append(("book", number)))
    (first,) = emit(outbox, engine, Order(number=1))
    drain_outbox(outbox, engine)
    handled.clear()
    inspection = outbox.inspect(engine)
    assert inspection.replay(first) == 2
    assert inspection.replay(UUID(first)) == 0
    drain_outbox(outbox, engine)
    assert sorted(handled) == [("book", 1), ("mail", 1)]
    assert inspection.replay(first, "mail") == 1
    drain_outbox(outbox, engine)
    assert handled[2:] == [("mail", 1)]


def test_a_replay_leaves_an_event_alone_that_is_yet_to_be_delivered(engine):
    """Be it new, or set aside: all its handlers hear of it."""
    outbox = new_outbox(engine)
    (id_,) = emit(outbox, engine, Order(number=1))
    inspection = outbox.inspect(engine)
    Steps(outbox, engine).expand()
    assert inspection.replay(id_) == 0
    handled = []
    outbox.on("order", id="mail")(lambda number: handled.append("mail"))
    outbox.on("order", id="book")(lambda number: handled.append("book"))
    Steps(outbox, engine)
    assert inspection.replay(id_, "mail") == 0
    drain_outbox(outbox, engine)
    assert sorted(handled) == ["book", "mail"]


def test_a_replay_keeps_an_id_that_was_given_as_long_as_before(engine):
    """So that an emitter may repeat itself after a replay, too."""
    outbox = new_outbox(engine)
    handled = []
    outbox.on("order", id="mail")(lambda number: handled.append(number))
    id_ = uuid4()
    for replays in (1, 0):
        with Session(engine) as session:
            outbox.emit(session, Order(number=1), id=id_)
            session.commit()
        drain_outbox(outbox, engine)
        outbox.inspect(engine).replay(id_) if replays else None
        drain_outbox(outbox, engine)
        hour = 3_600_000_000
        table = outbox.tables.event
        change = update(table).values(keep_until=table.c.keep_until - hour)
        with engine.begin() as connection:
            connection.execute(change)
        outbox.inspect(engine).purge()
    assert handled == [1, 1]


def test_what_is_not_in_the_outbox_cannot_be_replayed(engine):
    """The error says why the event may be gone, or which handler was meant."""
    outbox = new_outbox(engine, keep_done=timedelta(days=1))
    outbox.on("order", id="welcome-mail")(lambda number: None)
    inspection = outbox.inspect(engine)
    with pytest.raises(NotInOutboxError, match="keep_done keeps them longer"):
        inspection.replay(uuid4())
    (id_,) = emit(outbox, engine, Order(number=1))
    drain_outbox(outbox, engine)
    with pytest.raises(NotInOutboxError, match="did you mean 'welcome-mail'"):
        inspection.replay(id_, "welcome-mall")
    with pytest.raises(NotInOutboxError, match="start a worker that has it"):
        inspection.replay(id_, "quite another one")


def test_a_handler_that_is_paused_is_not_called(engine):
    """Its deliveries wait until it is resumed."""
    outbox = new_outbox(engine)
    handled = []
    outbox.on("order", id="mail")(lambda number: handled.append(number))
    emit(outbox, engine, Order(number=1))
    Steps(outbox, engine)
    inspection = outbox.inspect(engine)
    inspection.pause("mail")
    drain_outbox(outbox, engine)
    assert handled == []
    assert inspection.status().handlers[0].paused
    inspection.resume("mail")
    drain_outbox(outbox, engine)
    assert handled == [1]
    for method in (inspection.pause, inspection.resume, inspection.retire):
        with pytest.raises(NotInOutboxError, match="no durable handler 'other' was announced"):
            method("other")


def test_a_handler_that_is_retired_gives_its_deliveries_up(engine):
    """A worker that still has it takes it back, with the events that nobody else wanted."""
    outbox = new_outbox(engine)
    handled = []
    outbox.on("order", id="mail")(lambda number: handled.append(number))
    emit(outbox, engine, Order(number=1), Order(number=2))
    worker = Steps(outbox, engine)
    worker.expand()
    inspection = outbox.inspect(engine)
    assert inspection.retire("mail") == 2
    assert inspection.status().handlers[0].retired
    emit(outbox, engine, Order(number=3))
    worker.expand()
    assert count(engine, outbox.tables.delivery) == 0
    drain_outbox(outbox, engine)
    assert handled == [3]


def test_what_was_handled_is_purged_before_its_time(engine):
    """With its events, unless they are open elsewhere; more than one round takes."""
    outbox = new_outbox(engine, keep_done=timedelta(days=1))
    outbox.on("order", id="mail")(lambda number: None)
    emit(outbox, engine, *(Order(number=it) for it in range(1000)))
    drain_outbox(outbox, engine)
    emit(outbox, engine, Order(number=1000))
    assert outbox.inspect(engine).purge() == 1000
    assert count(engine, outbox.tables.event) == 1
    assert count(engine, outbox.tables.delivery) == 0


@pytest.mark.parametrize("is_encoded", [False, True])
def test_an_event_that_was_redacted_is_dead_when_it_is_tried(engine, is_encoded):
    """Its values are gone, and no attempt follows, whatever decodes the others."""
    options = {"encode": lambda it: f"x{it}", "decode": lambda it: it[it.index("x") + 1 :]}
    outbox = new_outbox(engine, **(options if is_encoded else {}))
    handled = []
    outbox.on("order", id="mail")(lambda number: handled.append(number))
    ids = emit(outbox, engine, Order(number=1, customer="a"), Order(number=2, customer="b"))
    inspection = outbox.inspect(engine)
    assert (inspection.redact(ids[0]), inspection.redact(uuid4())) == (1, 0)
    assert drain_outbox(outbox, engine) == (1, 1, 0)
    assert handled == [2]
    with engine.begin() as connection:
        stored = connection.execute(
            text("select payload, headers, sender from madcrow_event order by seq")
        )
        assert stored.first() == ("", "{}", None)
