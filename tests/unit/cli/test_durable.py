"""What the subcommands say of durable handlers."""

from __future__ import annotations

import sys

import pytest

from support.command import SHOP, Command, command, in_a_process

pytest.importorskip("sqlalchemy")

from madcrow_events import madcrow_signals  # once it is known to be there
from madcrow_events.cli._durable import durable_handlers
from madcrow_events.outbox import Outbox
from madcrow_events.signals import SignalRegistry

__all__ = ["command"]

DURABLE = """
    from sqlalchemy.orm import Session

    from madcrow_events import BaseEventContext, madcrow_signals, on_event
    from madcrow_events.outbox import Outbox

    outbox = Outbox("/shop")


    @madcrow_signals.event
    class OrderPlaced(BaseEventContext):
        order_id: int


    @outbox.on(OrderPlaced, id="mail")
    def send_mail(context: OrderPlaced) -> None: ...


    @outbox.on(OrderPlaced)
    def book(context: OrderPlaced, session: Session) -> None: ...
"""

ORDINARY = """

    @on_event(OrderPlaced)
    def log(context: OrderPlaced) -> None: ...
"""

NOT_REACHED = "Durable handlers hear only of outbox.emit(session, ...): mail, shop.book\n"


@pytest.fixture
def shop(command: Command) -> Command:
    """Return the command, beside a shop that has durable handlers only."""
    return command.write(shop=DURABLE)


def test_doctor_counts_durable_handlers(shop: Command):
    """An event that has one is handled."""
    ended = shop("doctor", app="shop")
    assert (ended.status, ended.out) == (0, "1 event, 2 handlers: nothing wrong\n")
    record = shop("doctor", "--json", app="shop").record
    assert (record["findings"], record["perhaps_handled"]) == ([], [])


def test_handlers_and_show_list_durable_handlers(shop: Command):
    """By id, each with the line of its function, also of one that takes a session."""
    (event,) = shop("handlers", "order_placed", "--json", app="shop").record
    assert event["handlers"] == []
    assert [(it["id"], it["function"]) for it in event["durable"]] == [
        ("mail", "shop.send_mail"),
        ("shop.book", "shop.book"),
    ]
    lines = DURABLE.splitlines()
    for it, decorator in zip(event["durable"], ('id="mail"', "on(OrderPlaced)"), strict=True):
        assert it["file"] == str(shop.folder / "shop.py")
        assert decorator in lines[it["line"] - 1]
    record = shop("show", "order_placed", "--json", app="shop").record
    assert (record["durable"], record["event"]["handlers"]) == (event["durable"], 2)
    for told in (shop("handlers", app="shop").out, shop("show", "order_placed", app="shop").out):
        assert " mail (shop.send_mail): durable  " in told
        assert " shop.book: durable  " in told
        assert "without handlers" not in told
        assert "Nobody listens" not in told


def test_explain_and_emit_say_what_durable_handlers_hear_of(shop: Command):
    """With ordinary handlers, and without."""
    explained = shop("explain", "order_placed", app="shop").out
    assert explained == f"order_placed would call nobody.\n{NOT_REACHED}"
    emitted = shop("emit", "order_placed", "order_id=7", "--yes", app="shop").out
    assert emitted == f"order_placed was emitted, and no ordinary handler listens.\n{NOT_REACHED}"
    record = shop("explain", "order_placed", "--json", app="shop").record
    assert record["durable"] == ["mail", "shop.book"]
    emission = ("emit", "order_placed", "order_id=7", "--yes", "--json")
    assert shop(*emission, app="shop").record["durable"] == ["mail", "shop.book"]


def test_emit_shows_durable_handlers_below_the_others(command: Command):
    """Only the ordinary ones have results."""
    command.write(shop=DURABLE + ORDINARY)
    told = command("emit", "order_placed", "order_id=7", "--yes", app="shop").out
    assert "shop.log" in told
    assert told.endswith(NOT_REACHED)


def test_an_outbox_may_be_made_with_the_application(command: Command):
    """By a function, whose result is all that keeps it."""
    command.write(
        shop="""
            from madcrow_events import madcrow_signals
            from madcrow_events.outbox import Outbox


            def create_app():
                outbox = Outbox("/shop")
                stock_low = madcrow_signals.signal("stock_low")
                outbox.on(stock_low, id="mail")(lambda: None)
                return outbox
        """
    )
    (event,) = command("handlers", "stock_low", "--json", app="shop:create_app").record
    assert [it["id"] for it in event["durable"]] == ["mail"]


def test_the_durable_handlers_of_an_event_are_those_of_its_registry_and_old_names():
    signals = SignalRegistry()
    mine, other = Outbox("/mine", signals=signals), Outbox("/other")
    old, paid = signals.signal("order_made"), signals.signal("order_paid")
    mine.on(old, id="mail")(print)
    mine.on(paid, id="book")(print)
    other.on(madcrow_signals.signal("order_made"), id="theirs")(print)
    placed = signals.signal("order_placed", formerly="order_made")
    assert [it.name for it in durable_handlers(signals)] == ["book", "mail"]
    assert [it.name for it in durable_handlers(signals, placed)] == ["mail"]
    assert [it.name for it in durable_handlers(signals, paid)] == ["book"]


def test_an_application_without_an_outbox_needs_no_sqlalchemy(command: Command):
    """The command imports it for nobody else."""
    command.write(shop=SHOP, sqlalchemy="raise RuntimeError('it was imported')")
    named = ("--app", "shop", "--app-dir", str(command.folder))
    for subcommand in (("handlers",), ("explain", "order_placed")):
        assert in_a_process(*subcommand, *named, folder=command.folder).status == 0


def test_without_the_module_of_outboxes_there_is_no_durable_handler(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delitem(sys.modules, "madcrow_events.outbox")
    assert durable_handlers(madcrow_signals) == []
