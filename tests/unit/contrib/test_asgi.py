"""Events of applications on ASGI: scope, deferral, streams, websockets, start and end."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from madcrow_events import (
    Emission,
    EventDispatcher,
    EventSignal,
    InvalidOptionError,
    SignalRegistry,
    get_event_dispatcher,
    madcrow_signals,
)
from madcrow_events.contrib.asgi import DISPATCHER, EventsMiddleware
from support.inside import current_frame

pytestmark = [
    pytest.mark.guarantee("B1", "B4", "B5"),
    pytest.mark.usefixtures("_everything_is_left"),
]

App = Callable[[Any, Any, Any], Awaitable[None]]

HEADERS = [(b"user-agent", b"test"), (b"x-request-id", b"r-17")]
HEAD = {"type": "http.response.start", "status": 200, "headers": []}


@pytest.fixture
def _everything_is_left() -> Iterator[None]:
    yield
    assert current_frame() is None


@pytest.fixture
def heard(signal: EventSignal[Any]) -> list[Emission]:
    """Return the emissions of `thing_happened` that went out."""
    emissions: list[Emission] = []

    @signal.on()
    def hear(emission: Emission) -> None:
        emissions.append(emission)

    return emissions


def numbers(heard: list[Emission]) -> list[Any]:
    return [emission.fields["number"] for emission in heard]


def part(body: bytes, *, more: bool = False, kind: str = "body") -> dict[str, Any]:
    return {"type": f"http.response.{kind}", "body": body, "more_body": more}


class Connection:
    """One call of an application: messages to it and from it, as a server exchanges them."""

    def __init__(self, app: App, scope: dict[str, Any]) -> None:
        self.to_app: asyncio.Queue[Any] = asyncio.Queue()
        self.from_app: asyncio.Queue[Any] = asyncio.Queue()
        call = app(scope, self.to_app.get, self.from_app.put)
        self.call = asyncio.ensure_future(call)

    async def say(self, kind: str) -> None:
        await self.to_app.put({"type": kind})

    async def hear(self) -> Any:
        async with asyncio.timeout(5):
            return await self.from_app.get()


@asynccontextmanager
async def connected(app: App, kind: str = "http", **more: Any) -> AsyncIterator[Connection]:
    """Call an application, and cancel the call in the end, if it has not ended."""
    scope = {"type": kind, "headers": HEADERS, "client": ("192.0.2.1", 50000), **more}
    connection = Connection(app, scope)
    try:
        yield connection
    finally:
        connection.call.cancel()
        await asyncio.gather(connection.call, return_exceptions=True)


async def get(app: App, **more: Any) -> list[dict[str, Any]]:
    """Return the messages that an application sends for one request."""
    async with connected(app, **more) as connection:
        await asyncio.gather(connection.call)
        return [connection.from_app.get_nowait() for _ in range(connection.from_app.qsize())]


# Scope


async def test_an_event_knows_request_id_address_and_user_agent(
    dispatcher: EventDispatcher, heard: list[Emission]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["madcrow_events.dispatcher"] is dispatcher
        dispatcher.emit("thing_happened", number=1)
        await send(HEAD)
        await send(part(b""))

    await get(EventsMiddleware(app, dispatcher))
    assert heard[0].context == {
        "number": 1,
        "request_id": "r-17",
        "ip_address": "192.0.2.1",
        "user_agent": "test",
    }
    await get(EventsMiddleware(app, dispatcher), headers=[(b"x-request-id", b"no id")], client=None)
    assert set(heard[1].context) == {"number", "request_id"}
    assert len(heard[1].context["request_id"]) == 32


async def test_200_concurrent_requests_keep_their_scopes_apart(
    dispatcher: EventDispatcher, heard: list[Emission]
) -> None:
    everyone = asyncio.Barrier(200)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await everyone.wait()
        await dispatcher.emit_async("thing_happened", number=scope["number"])
        await asyncio.to_thread(dispatcher.emit, "thing_happened", number=scope["number"])
        await send({**HEAD, "status": 200 + 300 * (scope["number"] % 2)})
        await send(part(b""))

    asked = [(number, [(b"x-request-id", f"r-{number}".encode())]) for number in range(200)]
    middleware = EventsMiddleware(app, dispatcher)
    await asyncio.gather(*(get(middleware, number=n, headers=h) for n, h in asked))
    assert sorted(numbers(heard)) == sorted([*range(0, 200, 2)] * 2)
    assert all(e.context["request_id"] == f"r-{e.context['number']}" for e in heard)


async def test_the_default_dispatcher_is_looked_up_for_each_request() -> None:
    """So that it may be set after the middleware is made."""
    states = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        states.append(get_event_dispatcher().emit("thing_happened").state)
        await send(HEAD)
        await send(part(b""))

    middleware = EventsMiddleware(app)
    with madcrow_signals.isolated(empty=True):
        madcrow_signals.signal("thing_happened")
        await get(middleware)
    assert states == ["deferred"]


# Deferral


@pytest.mark.parametrize(("status", "is_told"), [(200, True), (499, True), (500, False)])
async def test_what_is_emitted_before_the_head_goes_out_with_it_or_is_dropped(
    dispatcher: EventDispatcher, heard: list[Emission], status: int, *, is_told: bool
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        emissions.append(dispatcher.emit("thing_happened", number=1))
        await send({**HEAD, "status": status})
        await send(part(b"", more=True))
        await asyncio.Event().wait()

    emissions: list[Emission] = []
    async with connected(EventsMiddleware(app, dispatcher)) as connection:
        assert (await connection.hear())["status"] == status
        assert len(heard) == is_told
    assert emissions[0].state == ("done" if is_told else "dropped")


async def test_a_stream_emits_at_its_end(
    dispatcher: EventDispatcher, heard: list[Emission]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        dispatcher.emit("thing_happened", number=1)
        await send(HEAD)
        for number in (2, 3):
            dispatcher.emit("thing_happened", number=number)
            await send(part(b"part", more=number == 2))
            so_far.append(numbers(heard))
        dispatcher.emit("thing_happened", number=4)  # a background task
        so_far.append(numbers(heard))

    so_far: list[list[int]] = []
    await get(EventsMiddleware(app, dispatcher))
    assert so_far == [[1], [1, 2, 3], [1, 2, 3]]
    assert numbers(heard) == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["pathsend", "zerocopysend"])
async def test_a_file_is_the_end_of_a_response(
    dispatcher: EventDispatcher, heard: list[Emission], kind: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.debug", "info": {}})
        await send(HEAD)
        dispatcher.emit("thing_happened", number=1)
        await send(part(b"", kind=kind))
        states.append(heard[0].state)

    states: list[str] = []
    await get(EventsMiddleware(app, dispatcher))
    assert states == ["done"]


@pytest.mark.parametrize("parts", [0, 1, 2])
async def test_what_breaks_drops_what_has_not_gone_out(
    dispatcher: EventDispatcher, heard: list[Emission], parts: int
) -> None:
    """No head, a head and no body, a body without its end, or a background task."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for number, message in enumerate([HEAD, part(b"")]):
            dispatcher.emit("thing_happened", number=number)
            if number < parts:
                await send(message)
        dispatcher.emit("thing_happened", number=2)
        raise LookupError

    with pytest.raises(LookupError):
        await get(EventsMiddleware(app, dispatcher))
    assert numbers(heard) == [*range(parts)]


async def test_no_response_and_a_cancelled_one_drop_their_events(
    dispatcher: EventDispatcher, heard: list[Emission]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        dispatcher.emit("thing_happened", number=1)
        emitted.set()
        if scope["path"] == "/cancelled":
            await asyncio.Event().wait()

    emitted = asyncio.Event()
    await get(EventsMiddleware(app, dispatcher), path="/")
    emitted.clear()
    async with connected(EventsMiddleware(app, dispatcher), path="/cancelled"):
        await emitted.wait()
    assert heard == []


class ClientLeft(Exception):
    """What an application raises because it could not send."""


@pytest.mark.parametrize("is_told_by", ["send", "receive"])
@pytest.mark.parametrize("then", ["returns", "says so", "is cancelled", "fails"])
async def test_a_client_that_leaves_is_no_failure(
    dispatcher: EventDispatcher, heard: list[Emission], is_told_by: str, then: str
) -> None:
    """Servers tell it in either way. What fails after that drops what it emits itself."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(HEAD)
        dispatcher.emit("thing_happened", number=1)
        try:
            if is_told_by == "receive":
                assert (await receive())["type"] == "http.disconnect"
                raise ConnectionResetError  # as of another connection of the application
            await send(part(b"", more=True))
        except OSError:
            so_far.append(numbers(heard))
            dispatcher.emit("thing_happened", number=2)
            if then == "is cancelled":
                raise asyncio.CancelledError from None
            if then == "says so":
                raise ClientLeft if is_told_by == "send" else ConnectionResetError from None
        if then == "fails":
            raise LookupError

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and is_told_by == "send":
            raise OSError

    so_far: list[Any] = []
    with suppress(LookupError, ClientLeft, OSError, asyncio.CancelledError):
        await EventsMiddleware(app, dispatcher)({"type": "http", "headers": []}, receive, send)
    assert so_far == [[1]]
    assert numbers(heard) == ([1] if then == "fails" else [1, 2])


async def test_a_request_that_is_closed_awaits_nothing(
    dispatcher: EventDispatcher, heard: list[Emission]
) -> None:
    """As at the end of a loop; and one that is cancelled waits for no async handler."""

    @dispatcher.signals["thing_happened"].on()
    async def slow() -> None:
        await asyncio.sleep(0)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(HEAD)
        await receive()
        await dispatcher.emit_async("thing_happened", number=1)
        await asyncio.Event().wait()

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None: ...

    call = EventsMiddleware(app, dispatcher)({"type": "http"}, receive, send)
    asyncio.get_running_loop().call_soon(call.close)
    with suppress(StopIteration):
        call.send(None)
    await asyncio.sleep(0)
    assert await dispatcher.drain_async(5)
    assert numbers(heard) == [1]


async def test_a_client_that_leaves_after_the_response_excuses_no_background_task(
    dispatcher: EventDispatcher, heard: list[Emission]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(HEAD)
        await send(part(b""))
        assert (await receive())["type"] == "http.disconnect"
        dispatcher.emit("thing_happened", number=1)
        raise LookupError

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None: ...

    with pytest.raises(LookupError):
        await EventsMiddleware(app, dispatcher)({"type": "http", "headers": []}, receive, send)
    assert heard == []


async def test_a_response_without_an_end_drops_what_it_has_emitted(
    dispatcher: EventDispatcher, heard: list[Emission]
) -> None:
    """Quart cuts off a response that takes too long, and raises nothing."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(HEAD)
        dispatcher.emit("thing_happened", number=1)
        await send(part(b"first", more=True))

    await get(EventsMiddleware(app, dispatcher))
    assert heard == []


async def test_a_strict_dispatcher_fails_the_request_before_its_head(
    dispatcher: EventDispatcher, signal: EventSignal[Any]
) -> None:
    signal.subscribe(lambda: 1 // 0, on_error="raise")
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        dispatcher.emit("thing_happened", number=1)
        await send(HEAD)

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(ZeroDivisionError):
        await EventsMiddleware(app, dispatcher)({"type": "http", "headers": []}, None, send)
    assert sent == []


async def test_a_task_that_outlives_its_request_emits_at_once(
    dispatcher: EventDispatcher, heard: list[Emission]
) -> None:
    async def emit_later() -> None:
        await is_over.wait()
        dispatcher.emit("thing_happened", number=1)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        tasks.append(asyncio.create_task(emit_later()))
        await send(HEAD)
        await send(part(b""))

    is_over, tasks = asyncio.Event(), []
    await get(EventsMiddleware(app, dispatcher))
    is_over.set()
    await tasks[0]
    assert heard[0].context["request_id"] == "r-17"


# Websockets, mounted applications, and what is neither


async def test_a_websocket_has_the_scope_and_its_events_go_out_at_once(
    dispatcher: EventDispatcher, heard: list[Emission]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        states.append(dispatcher.emit("thing_happened", number=1).state)
        raise LookupError

    states: list[str] = []
    with pytest.raises(LookupError):
        await get(EventsMiddleware(app, dispatcher), type="websocket")
    assert states == ["done"]
    assert heard[0].context["request_id"] == "r-17"


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_mounted_application_is_a_part_of_the_request(
    dispatcher: EventDispatcher, heard: list[Emission], kind: str
) -> None:
    """Also one whose events have another dispatcher, which it finds: it has the same request id.

    The scope is as it was after each of them.
    """
    other = EventDispatcher(SignalRegistry())

    @other.signals.signal("thing_happened").on()
    def hear(emission: Emission) -> None:
        heard.append(emission)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope[DISPATCHER] is dispatcher
        for it in (dispatcher, other):
            it.emit("thing_happened", number=1)
        assert len(heard) == (3 if kind == "websocket" else 0)
        await send(HEAD)
        await send(part(b""))

    async def between(scope: Any, receive: Any, send: Any) -> None:
        assert scope[DISPATCHER] is dispatcher
        dispatcher.emit("thing_happened", number=0)
        await EventsMiddleware(EventsMiddleware(app, dispatcher), other)(scope, receive, send)
        assert scope[DISPATCHER] is dispatcher

    middleware = EventsMiddleware(between, dispatcher)
    await get(middleware, type=kind, headers=[])
    assert len(heard) == 3
    assert len({it.context["request_id"] for it in heard}) == 1


async def test_the_innermost_decides_what_goes_out(
    dispatcher: EventDispatcher, heard: list[Emission]
) -> None:
    """What stands between may hide a break, as Starlette's BaseHTTPMiddleware does."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        dispatcher.emit("thing_happened", number=1)
        await send(HEAD)
        dispatcher.emit("thing_happened", number=2)
        raise LookupError

    async def hiding(scope: Any, receive: Any, send: Any) -> None:
        with suppress(LookupError):
            await EventsMiddleware(app, dispatcher)(scope, receive, send)
        await send(part(b""))

    await get(EventsMiddleware(hiding, dispatcher))
    assert numbers(heard) == [1]


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_scope_may_be_given_to_another_application(
    dispatcher: EventDispatcher, heard: list[Emission], kind: str
) -> None:
    """It has a request id of its own again."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        dispatcher.emit("thing_happened", number=1)
        await send(HEAD)
        await send(part(b""))

    async def retry(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(2):
            await EventsMiddleware(app, dispatcher)(scope, receive, send)

    await get(retry, type=kind)
    assert [it.context["request_id"] for it in heard] == ["r-17"] * 2


async def test_another_kind_of_connection_is_passed_on(dispatcher: EventDispatcher) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)

    scopes: list[Any] = []
    await EventsMiddleware(app, dispatcher)({"type": "other"}, None, None)
    assert scopes == [{"type": "other"}]


# Start and end


async def live(
    scope: Any, receive: Any, send: Any, story: list[Any], dispatcher: EventDispatcher
) -> None:
    """Do as an application with a lifespan does."""
    assert (await receive())["type"] == "lifespan.startup"
    story.append("opened")
    if scope.get("fails"):
        await send({"type": "lifespan.startup.failed"})
        return
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    story.append("closed")
    dispatcher.emit("thing_happened", number=2)
    await send({"type": "lifespan.shutdown.complete"})


@pytest.fixture
def story(dispatcher: EventDispatcher, signal: EventSignal[Any]) -> list[Any]:
    told: list[Any] = []

    @dispatcher.signals.signal("system_startup").on()
    async def start(version: str | None, process_id: int) -> None:
        told.append(("system_startup", version, process_id))

    @dispatcher.signals.signal("system_shutdown").on()
    async def stop(uptime: float, reason: str) -> None:
        assert 0 <= uptime < 60
        told.append(("system_shutdown", reason))

    @signal.on(background=True)
    async def slow(number: int) -> None:
        await asyncio.sleep(0.05)
        told.append(("drained", number))

    return told


@pytest.fixture
def dispatcher(signals: SignalRegistry) -> Iterator[EventDispatcher]:
    with EventDispatcher(signals) as dispatcher:
        yield dispatcher


async def test_the_life_of_an_application_is_announced_and_what_is_pending_is_waited_for(
    dispatcher: EventDispatcher, story: list[Any]
) -> None:
    """Before the application closes what its handlers use, and once more after it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await live(scope, receive, send, story, dispatcher)

    middleware = EventsMiddleware(app, dispatcher, version="1.2.3")
    async with connected(middleware, "lifespan") as server:
        await server.say("lifespan.startup")
        assert (await server.hear())["type"] == "lifespan.startup.complete"
        assert story == ["opened", ("system_startup", "1.2.3", os.getpid())]
        # Its async handlers run in the server's loop, wherever it is emitted.
        thread = threading.Thread(
            target=dispatcher.emit, args=("thing_happened",), kwargs={"number": 1}
        )
        thread.start()
        thread.join()
        await server.say("lifespan.shutdown")
        assert (await server.hear())["type"] == "lifespan.shutdown.complete"
    assert story[2:] == [
        ("system_shutdown", "the server stops"),
        ("drained", 1),
        "closed",
        ("drained", 2),
    ]


async def test_a_start_that_failed_is_not_announced(
    dispatcher: EventDispatcher, story: list[Any]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await live({**scope, "fails": True}, receive, send, story, dispatcher)

    async with connected(EventsMiddleware(app, dispatcher), "lifespan") as server:
        await server.say("lifespan.startup")
        assert (await server.hear())["type"] == "lifespan.startup.failed"
    assert story == ["opened"]


@pytest.mark.parametrize("moment", ["at the end", "as it closes"])
async def test_a_handler_cannot_hold_the_end_up(
    dispatcher: EventDispatcher,
    story: list[Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    """It is told once, whether it was pending before the application closed or came with that."""
    monkeypatch.setattr("madcrow_events.contrib.asgi._SECONDS_AFTER", 0.05)

    async def endless() -> None:
        await asyncio.Event().wait()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await live(scope, receive, send, story, dispatcher)

    event = "system_shutdown" if moment == "at the end" else "thing_happened"
    dispatcher.signals[event].subscribe(endless, background=True)
    middleware = EventsMiddleware(app, dispatcher, drain_timeout=0.2)
    async with connected(middleware, "lifespan") as server:
        await server.say("lifespan.startup")
        await server.hear()
        await server.say("lifespan.shutdown")
        assert (await server.hear())["type"] == "lifespan.shutdown.complete"
    assert "closed" in story
    (line,) = [it.getMessage() for it in caplog.records if it.levelno == logging.WARNING]
    told = "0.2 s after the server was told" if moment == "at the end" else "0.05 s after the appli"
    assert f"handlers are still pending {told}" in line
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


async def test_a_handler_of_the_end_that_raises_keeps_nothing_open(
    dispatcher: EventDispatcher, story: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """What is pending is waited for, and the application closes what it has opened."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await live(scope, receive, send, story, dispatcher)

    @dispatcher.signals["system_shutdown"].on(on_error="raise")
    def broken() -> None:
        dispatcher.emit("thing_happened", number=1)
        raise TimeoutError

    async with connected(EventsMiddleware(app, dispatcher), "lifespan") as server:
        await server.say("lifespan.startup")
        await server.hear()
        await server.say("lifespan.shutdown")
        assert (await server.hear())["type"] == "lifespan.shutdown.complete"
    assert "a handler of system_shutdown failed: TimeoutError" in caplog.text
    assert story[-3:] == [("drained", 1), "closed", ("drained", 2)]


async def test_an_application_within_another_lives_once(
    dispatcher: EventDispatcher, story: list[Any]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await live(scope, receive, send, story, dispatcher)

    middleware = EventsMiddleware(EventsMiddleware(app, dispatcher), dispatcher)
    async with connected(middleware, "lifespan") as server:
        await server.say("lifespan.startup")
        await server.hear()
    assert story == ["opened", ("system_startup", None, os.getpid())]


@pytest.mark.parametrize("timeout", [0, -1, "2", True])
def test_a_time_that_is_none_is_refused_at_once(timeout: Any) -> None:
    with pytest.raises(InvalidOptionError, match="drain_timeout must be a number of seconds"):
        EventsMiddleware(None, drain_timeout=timeout)  # type: ignore[arg-type]


# Handlers that keep the event loop busy


@pytest.mark.parametrize(("debug", "in_debug_mode"), [(True, False), (None, True), (None, False)])
async def test_plain_handlers_that_keep_the_loop_busy_are_told_in_debug_mode(
    dispatcher: EventDispatcher,
    signal: EventSignal[Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    debug: bool | None,
    *,
    in_debug_mode: bool,
) -> None:
    """Not those that are awaited or run in a thread, and not after the end."""
    monkeypatch.setattr("madcrow_events.contrib.asgi._SLOW", 1e-9)

    @signal.on(id="plain")
    def plain() -> None: ...

    @signal.on(id="async")
    async def awaited() -> None: ...

    class Awaited:
        async def __call__(self) -> None: ...

    signal.subscribe(Awaited(), id="async object")

    @signal.on(id="background", background=True)
    def later() -> None: ...

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await live(scope, receive, send, [], dispatcher)

    asyncio.get_running_loop().set_debug(in_debug_mode)
    async with connected(EventsMiddleware(app, dispatcher, debug=debug), "lifespan") as server:
        await server.say("lifespan.startup")
        await server.hear()
        await dispatcher.emit_async("thing_happened", number=1)
        await dispatcher.drain_async()
        lines = [it.getMessage() for it in caplog.records if it.levelno == logging.WARNING]
        assert [line[:34] for line in lines] == (
            ["handler plain of thing_happened to"] if debug or in_debug_mode else []
        )
        await server.say("lifespan.shutdown")
        await server.hear()
    caplog.clear()
    await dispatcher.emit_async("thing_happened", number=1)
    await dispatcher.drain_async()
    assert "took" not in caplog.text
