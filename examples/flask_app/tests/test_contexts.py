"""Handlers run in an application context: with a session of Flask-SQLAlchemy, for one."""

import asyncio
import contextvars
import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from flask import Flask, current_app
from flask_app.events import Events
from flask_app.flask_extras import init_extras
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.exc import IntegrityError

from madcrow_events import (
    EventDispatcher,
    emit_event,
    get_event_dispatcher,
    madcrow_signals,
    on_event,
    set_event_dispatcher,
)
from madcrow_events.contrib.sqlalchemy import after_commit

db = SQLAlchemy()


class Note(db.Model):  # type: ignore[name-defined]  # made at run time
    text = db.Column(db.String, primary_key=True)


def add(text: str) -> None:
    db.session.add(Note(text=text))
    db.session.commit()


def texts() -> set[str]:
    return set(db.session.scalars(db.select(Note.text)))


def make_shop(folder: Path) -> Flask:
    shop = Flask("shop")
    shop.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{folder / 'shop.db'}"
    db.init_app(shop)
    Events(shop)
    init_extras(shop)

    @shop.get("/<text>")
    def order(text: str) -> str:
        add(text)
        emit_event("order_placed", text=text)
        return ""

    with shop.app_context():
        db.create_all()
    return shop


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Flask]:
    # One thread, so that what an emitter leaves to the background may run in its own thread.
    set_event_dispatcher(EventDispatcher(max_workers=1))
    shop = make_shop(tmp_path)
    yield shop
    assert get_event_dispatcher().drain(5)
    assert db.session.registry.registry == {}  # each context has removed its session
    with shop.app_context():
        db.engine.dispose()


class Contexts(dict[str, Any]):
    """The `g` of each place that was noted, in their order; kept, so that none is made again."""

    def note(self, name: str) -> None:
        self[name] = flask.g._get_current_object()

    def are_shared(self, *names: str) -> bool:
        return len({id(self[name]) for name in names}) == 1

    def are_apart(self, *names: str) -> bool:
        return len({id(self[name]) for name in names}) == len(names)


@pytest.fixture
def seen() -> Contexts:
    return Contexts()


def note(seen: Contexts, event: str, name: str, **options: Any) -> None:
    """Have a handler note its context; an async one if its name says so."""
    if "async" in name:

        async def handle_async() -> None:
            await asyncio.sleep(0)
            seen.note(name)

        on_event(event, **options)(handle_async)
    else:
        on_event(event, **options)(lambda: seen.note(name))


# Requests


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
def test_each_handler_of_a_request_has_a_session_of_its_own(
    shop: Flask, background: bool, is_async: bool
) -> None:
    """It sees what is committed, commits what it writes, and none has the failure of another."""
    saw: list[set[str]] = []
    torn_down: list[Any] = []
    shop.teardown_appcontext(torn_down.append)

    def subscribe(handle: Callable[[], None], priority: int) -> None:
        async def handle_async() -> None:
            handle()

        handler = handle_async if is_async else handle
        on_event("order_placed", background=background, priority=priority)(handler)

    def fail() -> None:
        assert current_app.name == "shop"
        db.session.add(Note(text="order"))  # which there is
        db.session.flush()

    def bill() -> None:
        saw.append(texts())
        add("bill")

    subscribe(fail, 2)
    subscribe(bill, 1)
    shop.test_client().get("/order")
    assert get_event_dispatcher().drain(5)
    assert not flask.has_app_context()
    assert saw == [{"order"}]
    with shop.app_context():
        assert texts() == {"order", "bill"}
    assert sum(isinstance(error, IntegrityError) for error in torn_down) == 1


@pytest.mark.parametrize("name", ["plain", "background", "async", "async background"])
def test_a_handler_of_what_a_handler_emits_has_its_own_context(
    shop: Flask, seen: Contexts, name: str
) -> None:
    madcrow_signals.signal("bill_written")

    def write() -> None:
        seen.note("write")
        emit_event("bill_written")
        seen.note("write still")

    async def write_async() -> None:
        write()

    handler = write_async if "async" in name else write
    on_event("order_placed", background="background" in name)(handler)
    note(seen, "order_placed", "next", priority=-1)
    note(seen, "bill_written", "called")
    note(seen, "bill_written", "in the background", background=True)
    note(seen, "bill_written", "async")
    shop.test_client().get("/order")
    assert get_event_dispatcher().drain(5)
    assert seen.are_shared("write", "write still")
    assert seen.are_apart("write", "next", "called", "in the background", "async")


def test_what_goes_out_at_a_commit_uses_no_session_of_the_view(shop: Flask) -> None:
    """Which is in its commit at that moment."""
    saw: list[set[str]] = []

    @on_event("order_placed")
    def bill() -> None:
        saw.append(texts())
        add("bill")

    @shop.get("/commit/order")
    def commit() -> str:
        with db.session.begin(), after_commit(db.session):
            db.session.add(Note(text="order"))
            emit_event("order_placed")
        return str(len(saw))

    assert shop.test_client().get("/commit/order").text == "1"
    assert saw == [{"order"}]
    with shop.app_context():
        assert texts() == {"order", "bill"}


def test_flasks_signals_share_the_context_of_their_request(shop: Flask, seen: Contexts) -> None:
    """A handler of `flask.request_started` may open what the view uses, in an async view, too."""

    @shop.get("/async/view")
    async def view() -> str:
        emit_event("order_placed")
        return flask.render_template_string("")

    shop.before_request(lambda: seen.note("request"))
    note(seen, "flask.request_started", "started")
    note(seen, "flask.template_rendered", "rendered")
    note(seen, "flask.request_tearing_down", "ended")
    note(seen, "flask.request_started", "in the background", background=True)
    note(seen, "flask.request_started", "async")
    note(seen, "order_placed", "afterwards")
    shop.test_client().get("/async/view")
    assert get_event_dispatcher().drain(5)
    assert seen.are_shared("request", "started", "rendered", "ended")
    assert seen.are_apart("request", "in the background", "async", "afterwards")


def test_the_start_and_the_end_of_the_process_have_contexts(
    shop: Flask, seen: Contexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[Callable[[], None]] = []
    monkeypatch.setattr("atexit.register", ends.append)
    for event in ("system_startup", "system_shutdown"):
        note(seen, event, event)
        note(seen, event, f"{event}, too")
    shop.test_client().get("/order")
    ends[0]()
    assert len(seen) == 4
    assert seen.are_apart(*seen)


def test_a_handler_may_ask_the_application(shop: Flask, seen: Contexts) -> None:
    """By a request of its own, whose handlers have their own contexts in turn."""
    client = shop.test_client()

    @on_event("order_placed", priority=1)
    def ask(text: str) -> None:
        seen.note(f"{text} asks")
        if text == "order":
            client.get("/question")
        seen.note(f"{text} has asked")

    on_event("order_placed")(lambda text: seen.note(f"{text} next"))
    client.get("/order")
    assert seen.are_shared("order asks", "order has asked")
    assert seen.are_apart("order asks", "question asks", "question next", "order next")


# Emissions without a request


@pytest.mark.parametrize("in_a_loop", [False, True])
def test_each_handler_has_its_own_context_where_the_emitter_has_one(
    shop: Flask, seen: Contexts, in_a_loop: bool
) -> None:
    """The session of the emitter, and what it has not committed, is its own."""
    on_event("order_placed", background=True)(lambda: 1 / 0)
    on_event("order_placed")(lambda: db.session.add(None))
    failures = ("failed", "failed, too")
    on_event("handler_failed")(lambda: seen.note(failures["failed" in seen]))
    for name in ("called", "async", "async, too"):
        note(seen, "order_placed", name)
    for name in ("in the background", "async, in the background"):
        note(seen, "order_placed", name, background=True)

    async def emit() -> None:
        await get_event_dispatcher().emit_async("order_placed")
        assert await get_event_dispatcher().drain_async(5)

    with shop.app_context():
        seen.note("emitter")
        db.session.add(Note(text="not committed"))
        if in_a_loop:
            asyncio.run(emit())
        else:
            emit_event("order_placed")
        assert get_event_dispatcher().drain(5)
        assert flask.g == seen["emitter"]
        assert texts() == {"not committed"}
    assert len(seen) == 8
    assert seen.are_apart(*seen)


def test_a_thread_of_the_application_has_the_context_that_it_enters(
    shop: Flask, seen: Contexts
) -> None:
    """Or takes along; without one, handlers have none, either."""
    had: list[bool] = []
    on_event("order_placed")(lambda: had.append(flask.has_app_context()))
    on_event("order_placed", background=True)(lambda: had.append(flask.has_app_context()))

    def emit() -> None:
        emit_event("order_placed")
        assert get_event_dispatcher().drain(5)

    def enter_and_emit() -> None:
        with shop.app_context():
            emit()

    for target in (emit, enter_and_emit):
        # An empty context, as threads of most Pythons have.
        thread = threading.Thread(target=contextvars.Context().run, args=(target,))
        thread.start()
        thread.join()
    with shop.app_context():
        thread = threading.Thread(target=contextvars.copy_context().run, args=(emit,))
        thread.start()
        thread.join()
    assert had == [False, False, True, True, True, True]


def test_commands_have_the_context_of_flask(shop: Flask, seen: Contexts) -> None:
    note(seen, "order_placed", "called")
    note(seen, "order_placed", "in the background", background=True)

    @shop.cli.command("order")
    def order() -> None:
        seen.note("command")
        add("order")
        emit_event("order_placed")

    result = shop.test_cli_runner().invoke(args=["order"])
    assert result.exit_code == 0
    assert get_event_dispatcher().drain(5)
    assert seen.are_apart("command", "called", "in the background")


def test_a_handler_that_raises_to_its_emitter_leaves_its_context(shop: Flask) -> None:
    set_event_dispatcher(EventDispatcher(on_error="raise"))
    strict = Flask("strict")
    Events(strict)
    strict.get("/")(lambda: str(emit_event("order_placed").state))
    on_event("order_placed")(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        strict.test_client().get("/")
    assert not flask.has_app_context()


# Several applications


@pytest.mark.parametrize("background", [False, True])
def test_handlers_have_the_context_of_the_application_whose_request_it_was(
    tmp_path: Path, background: bool
) -> None:
    """Also when the first one is gone, as in a suite that makes one for each test."""
    names: list[str] = []
    on_event("order_placed", background=background)(
        lambda: names.append(f"{current_app.name}: {sorted(texts())}")
    )
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        app = make_shop(folder)
        app.name = name
        for path in ("/order", "/another"):
            app.test_client().get(path)
            assert get_event_dispatcher().drain(5)
        with app.app_context():
            db.engine.dispose()
        del app
        gc.collect()
    expected = ["['order']", "['another', 'order']"]
    assert names == [f"{name}: {rows}" for name in ("first", "second") for rows in expected]


def test_an_application_called_by_another_one_has_a_request_of_its_own(shop: Flask) -> None:
    office = Flask("office")
    Events(office)
    names: list[str] = []
    on_event("order_placed")(lambda: names.append(current_app.name))

    @office.get("/")
    def ask() -> str:
        emit_event("order_placed")
        shop.test_client().get("/order")
        return str(names)

    assert office.test_client().get("/").text == "['shop']"
    assert names == ["shop", "office"]
