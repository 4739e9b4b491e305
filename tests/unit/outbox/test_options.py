"""Impossible options are refused where they are given, with what to write instead."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from madcrow_events import BaseEventContext, SignalRegistry
from madcrow_events.exceptions import (
    HandlerSignatureError,
    InvalidEventNameError,
    InvalidOptionError,
    UnknownEventError,
)
from madcrow_events.outbox import (
    HandlerIdError,
    Outbox,
    OutboxError,
    UnknownVersionError,
    Worker,
)
from madcrow_events.outbox._database import access_to
from madcrow_events.outbox._dialects import statements_for
from madcrow_events.outbox._durable import lasting_name
from madcrow_events.testing import drain_outbox
from support.outboxes import Order, keyed_outbox, wait_for


class Other(BaseEventContext):
    number: int


def handle(number):
    pass


@pytest.mark.parametrize(
    ("option", "value", "fix"),
    [
        *[("source", it, "such as '/shop'") for it in ("", None, 1, "a\nb")],
        *[("signals", it, "such as madcrow_signals") for it in (None, {}, "shop")],
        *[("schema", it, "without ':' and '%', or None") for it in ("", 1, "a:b", "a%b", "a\nb")],
        *[
            ("table_prefix", it, "such as 'shop_'")
            for it in (None, 1, "a" * 41, "a-b", "ä_", "a:b", "x\n", "%(a)s")
        ],
        *[
            (name, it, f"{name} must be a timedelta, such as")
            for name in ("keep_done", "keep_dead", "keep_inbox")
            for it in (5, None, timedelta(-1))
        ],
    ],
)
def test_an_outbox_refuses_impossible_options(option, value, fix):
    """Each error names the option."""
    options = {"source": "/shop", "signals": SignalRegistry(), option: value}
    with pytest.raises(InvalidOptionError, match=fix) as caught:
        Outbox(**options)
    assert caught.value.option == option


@pytest.mark.parametrize(
    ("options", "fix"),
    [
        ({"encode": str}, "give both, or none"),
        ({"decode": str}, "give both, or none"),
        ({"encode": 1, "decode": str}, "encode must be a function"),
        ({"encode": str, "decode": "no"}, "decode must be a function"),
    ],
)
def test_an_outbox_encodes_and_decodes_or_neither(options, fix):
    """One without the other would write what it cannot read."""
    with pytest.raises(InvalidOptionError, match=fix):
        Outbox("/shop", signals=SignalRegistry(), **options)


def test_names_of_tables_may_be_long_or_have_no_prefix(outbox_engine):
    """Each table has a name of its own; the representation tells whose outbox it is."""
    for prefix in ("", "a" * 40):
        outbox = keyed_outbox(table_prefix=prefix)
        outbox.metadata.create_all(outbox_engine)
        access = access_to(outbox_engine)
        outbox._check_schema(access)
        access.close()
    assert repr(outbox) == "<Outbox /shop of SignalRegistry>"


NAMES = "must be a text of 1 to 128 printable characters"
SENDERS = "must be a str, an int, a UUID or None, not"


@pytest.mark.parametrize(
    ("option", "value", "fix"),
    [
        *[("id", it, NAMES) for it in (1, "", "a\nb", "x" * 129)],
        *[("retry", it, r"such as Retry\(attempts=5\)") for it in (None, 5, "often")],
        *[("timeout", it, "a number of seconds above 0") for it in (0, -1, "1", True)],
        *[("concurrency", it, "positive int, or None") for it in (0, True, 1.5, "2")],
        ("when", 1, "must be a plain function"),
        *[("sender", it, SENDERS) for it in (object(), True, 1.5, b"", ("a",))],
        *[
            ("formerly", it, r"such as \('send-mail',\)")
            for it in ("old", ["old"], (1,), ("",), ("a\nb",), None)
        ],
        *[("on_dead", it, "'block', 'continue' or None, not") for it in ("x", [], True, 0, "")],
    ],
)
def test_a_durable_handler_refuses_impossible_options(option, value, fix):
    """Each error names the option."""
    decorate = keyed_outbox().on("order", **{"id": "mail", option: value})
    with pytest.raises(InvalidOptionError, match=fix) as caught:
        decorate(handle)
    assert caught.value.option == option


@pytest.mark.parametrize(
    ("event", "error", "fix"),
    [
        ("ordr", UnknownEventError, "did you mean order"),
        ("or*", InvalidEventNameError, "give the name of one event"),
        (None, InvalidEventNameError, "give a context"),
        (Other, UnknownEventError, r"@registry\.event above class Other"),
    ],
)
def test_a_durable_handler_is_for_one_event_that_is_declared(event, error, fix):
    """A pattern would hear of events whose contexts it has never seen."""
    with pytest.raises(error, match=fix):
        keyed_outbox().on(event)


@pytest.mark.parametrize("handler", [None, 1, "mail", lambda nummber: None])
def test_a_durable_handler_must_be_callable_with_what_the_event_carries(handler):
    """This shows where it is declared, not in a worker."""
    with pytest.raises(HandlerSignatureError):
        keyed_outbox().on("order", id="mail")(handler)


def test_a_durable_handler_has_a_lasting_name():
    """That of its module and its own, unless it has none that another process would know."""
    outbox = keyed_outbox()
    outbox.on("order")(handle)
    assert outbox.handlers == (f"{__name__}.handle",)
    assert lasting_name(handle) == f"{__name__}.handle"

    def nested(number):
        pass

    class Callable_:
        def __call__(self, number):
            pass

    for handler in (nested, lambda number: None, Callable_()):
        with pytest.raises(HandlerIdError, match="give it one, as in id='welcome-mail'") as caught:
            outbox.on("order")(handler)
        assert caught.value.handler is handler


def test_a_handler_of_the_script_that_runs_needs_an_id(monkeypatch):
    """Where its module is imported, it has another name."""
    monkeypatch.setattr(handle, "__module__", "__main__")
    with pytest.raises(HandlerIdError, match="belongs to the script that is run"):
        keyed_outbox().on("order")(handle)


def test_two_handlers_cannot_have_one_id():
    """The same one may be declared again, as when its module runs anew."""
    outbox = keyed_outbox()
    outbox.on("order", id="mail")(handle)
    outbox.on("order", id="mail")(handle)
    with pytest.raises(HandlerIdError, match="give one of them another id"):
        outbox.on("order", id="mail")(lambda number: None)
    assert outbox.handlers == ("mail",)


@pytest.mark.parametrize("schema", ["s" * 50, 'a"b'])
def test_names_that_are_no_channel_are_refused(schema):
    """PostgreSQL would refuse each commit of an event."""
    with pytest.raises(InvalidOptionError, match="shorter ones") as caught:
        keyed_outbox(schema=schema, notify=True)
    assert caught.value.option == "notify"
    keyed_outbox(schema=schema)


def test_one_function_needs_two_ids_for_two_events():
    """Else the second declaration would take the place of the first."""
    outbox = keyed_outbox()
    outbox.signals.signal("other", context=Other)
    outbox.on("order")(handle)
    with pytest.raises(HandlerIdError, match="handle for order: give one of them another id"):
        outbox.on("other")(handle)
    outbox.on("other", id="other")(handle)
    assert outbox.handlers == (f"{__name__}.handle", "other")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("old", ()), ("new", ("old",))),
        (("new", ("old",)), ("old", ())),
        (("new", ("old",)), ("newer", ("old",))),
    ],
)
def test_an_earlier_id_belongs_to_one_handler(first, second):
    """Else one of the two would take the deliveries of both over, and the other one get none."""
    outbox = keyed_outbox()
    outbox.on("order", id=first[0], formerly=first[1])(handle)
    with pytest.raises(HandlerIdError, match=r"the id 'old', .* leave the old one out of formerly"):
        outbox.on("order", id=second[0], formerly=second[1])(lambda number: None)


@pytest.mark.parametrize(
    ("option", "value", "fix"),
    [
        *[("id", it, r"write UUID\(") for it in ("x", 1, UUID(int=1).hex)],
        *[
            ("not_before", it, "must be a datetime with a time zone")
            for it in (1, "now", datetime.now(), date.today(), timedelta(1))  # noqa: DTZ005, DTZ011
        ],
    ],
)
def test_an_emission_refuses_impossible_options(option, value, fix):
    """Each error names the option."""
    outbox, engine = keyed_outbox(), create_engine("sqlite://")
    with Session(engine) as session, pytest.raises(InvalidOptionError, match=fix) as caught:
        outbox.emit(session, Order(number=1), **{option: value})
    assert caught.value.option == option
    engine.dispose()


@pytest.mark.parametrize("context", [None, 1, {"number": 1}, Order, "order"])
def test_an_emission_takes_a_context(context):
    """Its class is the model of the event, and the commit fails, too."""
    outbox, engine = keyed_outbox(), create_engine("sqlite://")
    with Session(engine) as session:
        with pytest.raises((InvalidEventNameError, UnknownEventError)):
            outbox.emit(session, context)
        session.rollback()
    engine.dispose()


@pytest.mark.parametrize(
    ("options", "fix"),
    [
        *[({"concurrency": it}, "positive int") for it in (0, True, 1.5, None)],
        *[({"batch": it}, "positive int") for it in (0, True, "2")],
        *[
            ({name: it}, f"{name} must be a number of seconds above 0, such as 2.5")
            for name in ("lease", "poll")
            for it in (0, -1, True, None, "1", float("nan"), float("inf"))
        ],
        *[({"handlers": it}, r"such as 'mail\*', or None") for it in (1, ["mail"])],
    ],
)
def test_a_worker_refuses_impossible_options(outbox_engine, options, fix):
    """Each error names the option."""
    with pytest.raises(InvalidOptionError, match=fix) as caught:
        Worker(keyed_outbox(), outbox_engine, **options)
    assert [caught.value.option] == list(options)


def test_a_worker_takes_the_outbox_first(outbox_engine):
    """The error shows the call."""
    for outbox in (None, outbox_engine):
        with pytest.raises(InvalidOptionError, match=r"Worker\(outbox, engine\)"):
            Worker(outbox, outbox_engine)


def test_another_database_is_refused():
    """The error names those that will do."""

    class Dialect:
        name = "mysql"

    with pytest.raises(OutboxError, match="needs PostgreSQL or SQLite, not mysql"):
        statements_for(keyed_outbox().tables, Dialect())


def test_a_drain_that_fails_a_handler_that_is_not_there_is_refused(outbox_engine):
    """Or a test with a misspelt id would pass in vain."""
    outbox = keyed_outbox()
    outbox.on("order", id="mail")(lambda number: None)
    with pytest.raises(InvalidOptionError, match=r"'mial'.*did you mean 'mail'\?"):
        drain_outbox(outbox, outbox_engine, fail={"mial": KeyError()})
    with pytest.raises(InvalidOptionError, match="give the id of one"):
        drain_outbox(outbox, outbox_engine, fail={"x": KeyError()})


def test_an_upcast_that_nothing_calls_is_refused_at_the_start(outbox_engine):
    """Somebody forgot the version of the model."""
    outbox = keyed_outbox()
    outbox.metadata.create_all(outbox_engine)
    outbox.upcast("order", from_version=1)(lambda document: document)
    with pytest.raises(UnknownVersionError, match=r"write event_version: ClassVar\[int\] = 2"):
        Worker(outbox, outbox_engine).run(once=True)


def test_a_session_without_a_good_annotation_is_explained():
    """`Session | None`, and an import for type checkers only, are known as no session."""
    outbox = keyed_outbox()
    with pytest.raises(HandlerSignatureError, match="annotate it with Session or AsyncSession"):

        @outbox.on("order", id="book")
        def book(context: Order, session) -> None: ...

    with pytest.raises(HandlerSignatureError, match="is no field of Order") as raised:

        @outbox.on("order", id="other")
        def other(context: Order, clock) -> None: ...

    assert "Session" not in str(raised.value)


def test_a_worker_that_is_there_says_so_now_and_then(outbox_engine, monkeypatch):
    """So that `status` tells handlers whose workers are gone."""
    monkeypatch.setattr("madcrow_events.outbox._shift._SEEN_EVERY", 0.05)
    outbox = keyed_outbox()
    outbox.metadata.create_all(outbox_engine)
    outbox.on("order", id="mail")(lambda number: None)
    handler = outbox.tables.handler

    def seen():
        with outbox_engine.connect() as connection:
            return connection.execute(select(handler.c.seen)).scalar_one()

    with Worker(outbox, outbox_engine, poll=0.02):
        first = seen()
        wait_for(lambda: seen() > first)
