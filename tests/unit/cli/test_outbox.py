"""The subcommands for outboxes: `worker`, `outbox status` and `outbox ddl`."""

from __future__ import annotations

import gc
import logging
import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.command import Command, command

pytest.importorskip("sqlalchemy")

from madcrow_events.cli._drawing import DRAWINGS, _age  # once it is known to be there
from support.durable_shop import commit_in, write_shop

__all__ = ["command"]

APP = "durable_shop"


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """What the command does to the log is undone, and connections are closed."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], level = before
    root.setLevel(level)
    gc.collect()


@pytest.fixture
def shop(command: Command, tmp_path: Path) -> Command:
    """Return the command, beside a shop whose outbox has tables."""
    write_shop(tmp_path)
    return command


def test_a_worker_handles_what_is_due_and_ends(shop: Command, tmp_path: Path):
    """With `--once`, and the worker of the module."""
    commit_in(tmp_path, "OrderPlaced(order_id=1), OrderPlaced(order_id=2)")
    ended = shop("worker", "--once", app=APP)
    assert ended.status == 0
    assert ended.out == "booked 1\nbooked 2\n"
    assert shop("worker", "--once", app=f"{APP}:worker").out == ""


def test_a_worker_may_handle_a_part_and_fewer_at_a_time(shop: Command, tmp_path: Path):
    """By a pattern for the ids of handlers."""
    commit_in(tmp_path, "OrderPlaced(order_id=1)")
    ended = shop("worker", "--once", "--handlers", "ma*", "--concurrency", "1", app=APP)
    assert (ended.status, ended.out) == (0, "")
    record = shop("outbox", "status", "--json", app=APP).record
    assert {it["name"]: it["due"] for it in record["handlers"]} == {"book": 1, "mail": 0, "wait": 1}


def test_the_status_says_what_waits_and_what_is_dead(shop: Command, tmp_path: Path):
    """Also events that nobody handles, and keys that are held up."""
    commit_in(tmp_path, "OrderPlaced(order_id=13), OrderPlaced(order_id=1), OrderLost(order_id=5)")
    new = shop("outbox", "status", app=APP)
    assert "/shop: 3 new events, the oldest " in new.out
    assert "No worker has announced a handler yet." in new.out
    shop("worker", "--once", app=APP)
    ended = shop("outbox", "status", "--json", app=APP)
    assert ended.status == 0
    record = ended.record
    assert (record["source"], record["new"], record["oldest_transaction"]) == ("/shop", 0, 0.0)
    book, mail, _ = record["handlers"]
    assert book == {
        "name": "book",
        "event": "order_placed",
        **dict.fromkeys(("due", "delayed", "running", "parked", "dead", "unknown"), 0),
        "oldest_due": 0.0,
        "seen": book["seen"],
        "paused": False,
        "retired": False,
    }
    assert (mail["dead"], mail["parked"]) == (1, 1)
    (aside,) = record["set_aside"]
    assert (aside["event"], aside["count"]) == ("order_lost", 1)
    (blocked,) = record["blocked"]
    assert blocked["handler"] == "mail"
    assert (blocked["is_dead"], blocked["waiting"]) == (True, 1)
    (dead,) = record["dead"]
    assert (dead["handler"], dead["count"]) == ("mail", 1)
    assert dead["group"].startswith("GiveUp in durable_shop:")
    told = shop("outbox", "status", app=APP).out
    for part in (
        "mail     order_placed  1 dead, 1 parked  ",
        "Events that no handler was announced for\n",
        "order_lost  ",
        "Dead deliveries\n",
        "GiveUp in durable_shop:",
        "Keys that are held up\n",
    ):
        assert part in told


def outbox_with(**handler: Any) -> dict[str, Any]:
    """Return the record of an outbox with one handler."""
    states = ("due", "delayed", "running", "parked", "dead", "unknown")
    return {
        "source": "/shop",
        "new": 0,
        "oldest_new": 0.0,
        "handlers": [
            {
                "name": "mail",
                "event": "order_placed",
                **dict.fromkeys(states, 0),
                "oldest_due": 0.0,
                "seen": 3.0,
                "paused": False,
                "retired": False,
                **handler,
            }
        ],
        "set_aside": [],
        "dead": [],
        "blocked": [],
        "oldest_transaction": 0.0,
    }


@pytest.mark.parametrize(
    ("handler", "told"),
    [
        ({}, "none"),
        ({"due": 3, "oldest_due": 7200.0}, "3 due for 2 h"),
        ({"running": 1, "delayed": 2, "parked": 4}, "1 running, 2 delayed, 4 parked"),
        ({"delayed": 2, "unknown": 1}, "2 delayed, 1 of them of an unknown version"),
        ({"parked": 1, "paused": True}, "1 parked, paused"),
        ({"retired": True}, "retired"),
    ],
)
def test_the_states_of_a_handler_that_occur_are_named(
    command: Command, handler: dict[str, Any], told: str, capsys: pytest.CaptureFixture[str]
):
    """In one cell of its row."""
    from rich.console import Console

    Console(width=200).print(DRAWINGS["outbox"](outbox_with(**handler), 200))
    assert f"order_placed  {told}  " in capsys.readouterr().out


def test_an_old_transaction_is_told_and_a_delayed_head_is_no_dead_one(
    capsys: pytest.CaptureFixture[str],
):
    """The former keeps PostgreSQL from removing what was deleted."""
    from rich.console import Console

    record = outbox_with()
    record["oldest_transaction"] = 600.0
    head = {"head": "1-2", "handler": "mail", "is_dead": False, "waiting": 2, "age": 1.0}
    record["blocked"] = [head]
    Console(width=200).print(DRAWINGS["outbox"](record, 200))
    out = capsys.readouterr().out
    assert "the oldest transaction of the database is 10 min old" in out
    assert "delayed" in out


def test_a_duration_is_told_in_one_unit():
    assert [*map(_age, (0.4, 119, 120, 7199, 7200, 172_800))] == [
        *("0 s", "119 s", "2 min", "120 min", "2 h", "2 days")
    ]


def test_the_statements_make_the_tables(shop: Command, tmp_path: Path):
    """As SQLite's own program reads them; the dialect is that of the worker's engine."""
    ended = shop("outbox", "ddl", app=APP)
    database = sqlite3.connect(tmp_path / "other.db")
    database.executescript(ended.out)
    database.close()
    url = f"sqlite:///{tmp_path / 'other.db'}"
    status = shop("outbox", "status", "--json", "--database", url, app=APP)
    assert (status.status, status.record["handlers"]) == (0, [])
    assert shop("outbox", "ddl", app=APP).out == ended.out


def test_the_statements_for_postgresql_need_no_driver(command: Command, tmp_path: Path):
    """They have the schema, the prefix and the storage parameters of the tables."""
    command.write(
        alone="""
            from madcrow_events.outbox import Outbox
            outbox = Outbox("/alone", schema="shop", table_prefix="out_")
        """
    )
    record = command("outbox", "ddl", "--dialect", "postgresql", "--json", app="alone").record
    assert record["dialect"] == "postgresql"
    assert record["statements"][0].startswith("CREATE TABLE shop.out_event (")
    assert any("ALTER TABLE shop.out_delivery SET (auto" in it for it in record["statements"])
    ended = command("outbox", "ddl", app="alone")
    assert ended.status == 2
    assert "an Outbox alone has no database: name a Worker" in ended.err


def test_an_outbox_alone_needs_a_database(
    shop: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """By the option, or by a variable; the option wins over the engine of a worker, too."""
    commit_in(tmp_path, "OrderPlaced(order_id=1)")
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    ended = shop("worker", "--once", app=f"{APP}:outbox")
    assert ended.status == 2
    assert "--database sqlite:///shop.db or by MADCROW_EVENTS_DATABASE" in ended.err
    monkeypatch.setenv("MADCROW_EVENTS_DATABASE", url)
    assert shop("outbox", "status", "--json", app=f"{APP}:outbox").record["new"] == 1
    monkeypatch.setenv("MADCROW_EVENTS_DATABASE", "sqlite:////nowhere/shop.db")
    assert shop("outbox", "status", "--json", app=APP).record["new"] == 1
    ended = shop("worker", "--once", "--database", url, app=f"{APP}:outbox")
    assert ended.out == "booked 1\n"
    pytest.importorskip("aiosqlite")
    url = url.replace("sqlite:", "sqlite+aiosqlite:")
    assert shop("outbox", "status", "--database", url, "--json", app=APP).record["new"] == 0


def test_the_application_may_have_other_modules_and_a_factory(shop: Command):
    """A worker that the module has imported counts; one thing with two names is one."""
    shop.write(
        main="""
            from durable_shop import outbox, worker
            from durable_shop import worker as the_same
            def create_app():
                return object()
        """,
        factory="""
            def make():
                from durable_shop import outbox
                return outbox
        """,
    )
    for app in ("main", "main:create_app", "main:outbox.source"):
        assert shop("worker", "--once", app=app).status == 0
    assert shop("outbox", "ddl", "--dialect", "sqlite", app="factory:make").status == 0


@pytest.mark.parametrize(
    ("app", "told"),
    [
        (None, "name the worker of your application, as in --app shop.events:worker"),
        ("several", "several has several of Worker: a, b: name one, as in --app several:a"),
        ("none", "none has no Worker and no Outbox: name the module that has one"),
        ("idle", "the outbox has no durable handler: let the module that --app names import"),
    ],
)
def test_what_cannot_be_found_is_told(shop: Command, app: str | None, told: str):
    """With what to write, and the status 2."""
    shop.write(
        several="""
            from durable_shop import outbox, worker as a, engine
            from madcrow_events.outbox import Worker
            b = Worker(outbox, engine)
        """,
        none="",
        idle="""
            from durable_shop import engine
            from madcrow_events.outbox import Outbox, Worker
            worker = Worker(Outbox("/idle"), engine)
        """,
    )
    ended = shop("worker", "--once", app=app)
    assert ended.status == 2
    assert told in ended.err


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("mial", "no durable handler matches 'mial': did you mean mail?"),
        ("x*", "no durable handler matches 'x*': there are book, mail, wait"),
    ],
)
def test_a_pattern_that_matches_no_handler_is_an_error(shop: Command, pattern: str, told: str):
    """It names the nearest one, or all."""
    ended = shop("worker", "--once", "--handlers", pattern, app=APP)
    assert ended.status == 2
    assert told in ended.err


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("no url", "the database is no URL that SQLAlchemy knows"),
        ("nothing://ada:secret@host/shop", "the database is no URL that SQLAlchemy knows"),
        ("sqlite:////nowhere/shop.db", "the database sqlite:////nowhere/shop.db cannot be used: "),
        ("postgresql+pg8000://ada:secret@host/shop", "pg8000 is missing, which the URL"),
    ],
)
@pytest.mark.parametrize("subcommand", [("worker", "--once"), ("outbox", "status")])
def test_a_database_that_cannot_be_used_is_told_without_secrets(
    shop: Command, subcommand: tuple[str, ...], url: str, told: str
):
    """The status is 2."""
    ended = shop(*subcommand, "--database", url, app=APP)
    assert ended.status == 2
    assert told in ended.err
    assert "secret" not in ended.err


def test_a_database_at_a_host_is_named_without_its_user(shop: Command):
    """And with its port."""
    pytest.importorskip("psycopg")
    url = "postgresql+psycopg://ada:secret@127.0.0.1:1/shop"
    ended = shop("outbox", "status", "--database", url, app=APP)
    assert ended.status == 2
    assert "the database postgresql://127.0.0.1:1/shop cannot be used: OperationalErr" in ended.err
    assert "secret" not in ended.err


@pytest.mark.parametrize("subcommand", [("worker", "--once"), ("outbox", "status")])
def test_a_database_without_the_tables_is_told(
    shop: Command, subcommand: tuple[str, ...], tmp_path: Path
):
    """With what makes them."""
    url = f"sqlite:///{tmp_path / 'empty.db'}"
    ended = shop(*subcommand, "--database", url, app=APP)
    assert ended.status == 2
    assert "is missing: call outbox.metadata.create_all(engine)" in ended.err


def test_a_worker_of_the_command_is_as_that_of_the_application(
    shop: Command, monkeypatch: pytest.MonkeyPatch
):
    """But for what the options say."""
    from madcrow_events.outbox import Worker

    made: list[Worker] = []
    monkeypatch.setattr(Worker, "run", lambda worker, *, once: made.append(worker))
    shop.write(
        main="""
            from durable_shop import engine, outbox
            from madcrow_events.outbox import Worker
            mails = Worker(
                outbox, engine, concurrency=3, lease=60, poll=2, batch=5, handlers="mail*"
            )
        """
    )
    assert shop("worker", app="main").status == 0
    assert shop("worker", "--concurrency", "9", "--handlers", "b*", app="main:mails").status == 0
    assert [(it.concurrency, it.lease, it.poll, it.batch, it.handlers) for it in made] == [
        (3, 60, 2, 5, "mail*"),
        (9, 60, 2, 5, "b*"),
    ]
    assert shop("worker", "--concurrency", "0", app="main").status == 2


def test_who_has_told_it_to_end_twice_does_not_wait(shop: Command, monkeypatch: pytest.MonkeyPatch):
    """Neither for handlers that were given up, nor for ordinary ones in the background."""
    from madcrow_events import EventDispatcher
    from madcrow_events.outbox import Worker

    def stop_twice(worker: Worker, *, once: bool) -> None:
        assert not once
        worker.stop()
        worker.stop()

    def end(status: int) -> None:
        raise SystemExit(status)

    drained: list[object] = []
    monkeypatch.setattr(Worker, "run", stop_twice)
    monkeypatch.setattr(EventDispatcher, "drain", drained.append)
    monkeypatch.setattr(os, "_exit", end)
    assert shop("worker", app=APP).status == 0
    assert drained == []


def test_without_the_extra_the_command_says_what_to_install(
    shop: Command, monkeypatch: pytest.MonkeyPatch
):
    """The process that has no SQLAlchemy is tested apart."""
    monkeypatch.setitem(sys.modules, "madcrow_events.outbox", None)
    ended = shop("outbox", "ddl", app=APP)
    assert ended.status == 2
    assert ended.err.endswith(" is missing: pip install 'madcrow-events[outbox]'\n")


def test_the_application_decides_where_the_log_goes(shop: Command, tmp_path: Path):
    """Else it goes to the standard error."""
    commit_in(tmp_path, "OrderPlaced(order_id=13)")
    root = logging.getLogger()
    root.handlers[:] = []
    shop("worker", "--once", app=APP)
    (handler,) = root.handlers
    shop("worker", "--once", app=APP)
    assert root.handlers == [handler]
    assert "%(levelname)s" in str(handler.formatter and handler.formatter._fmt)
