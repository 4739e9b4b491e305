"""The adapter: set-up, the dependency `Events`, and requests of FastAPI in all their forms."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import StreamingResponse
from fastapi_app.events import Events, init_events
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.sessions import SessionMiddleware

from madcrow_events import Emission, emit_event, get_event_dispatcher, madcrow_signals, on_event
from madcrow_events.event_handlers.security_handlers import security_group

Heard = list[Emission]
ClientOf = Callable[[FastAPI], httpx.AsyncClient]
Connect = Callable[..., Any]

R_17 = {"X-Request-ID": "r-17"}


def numbers(heard: Heard) -> list[int]:
    return [emission.context["number"] for emission in heard]


def add_routes(app: FastAPI) -> None:
    """Let an application emit `order_placed` in all kinds of endpoints, and then fail."""

    @app.get("/async/{status}")
    async def in_the_loop(status: int, events: Events) -> str:
        state = events.emit("order_placed", number=1).state
        if status != 200:
            raise HTTPException(status)
        return state

    @app.get("/plain/{status}")
    def in_a_thread(status: int, events: Events) -> str:
        state = events.emit("order_placed", number=1).state
        if status == 500:
            raise LookupError
        return state

    @app.get("/stream/{status}")
    async def stream(status: int, events: Events) -> Response:
        async def parts() -> AsyncIterator[str]:
            yield "first"
            events.emit("order_placed", number=2)
            if status != 200:
                raise LookupError

        events.emit("order_placed", number=1)
        return StreamingResponse(parts())

    @app.websocket("/talk")
    async def talk(websocket: WebSocket, events: Events) -> None:
        await websocket.accept()
        await websocket.send_text(events.emit("order_placed", number=1).state)


@pytest.fixture
def app(heard: Heard) -> FastAPI:
    app = FastAPI(version="1.2.3")
    init_events(app)
    add_routes(app)
    return app


# Setting up


def test_it_sets_the_dispatcher_and_registers_the_ready_made_handlers(app: FastAPI) -> None:
    assert app.state.event_dispatcher is get_event_dispatcher()
    assert security_group in {it.origin for it in madcrow_signals.subscriptions}


async def test_a_second_call_is_refused_and_one_that_is_too_late(client_of: ClientOf) -> None:
    app, started = FastAPI(), FastAPI()
    init_events(app)
    with pytest.raises(RuntimeError, match="call it once"):
        init_events(app)
    async with client_of(started) as client:
        await client.get("/")
    with pytest.raises(RuntimeError, match="after an application has started"):
        init_events(started)


@pytest.mark.parametrize("debug", [False, True])
async def test_version_and_debug_of_the_application_are_handed_on(
    heard: Heard, connect: Connect, caplog: pytest.LogCaptureFixture, debug: bool
) -> None:
    """Debugging, it warns of plain handlers that keep the loop busy. The lifespan is kept."""
    story = []

    @on_event("system_startup")
    def start(version: str) -> None:
        story.append(f"startup of {version}")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        story.append("open")
        yield
        story.append("close")

    app = FastAPI(version="1.2.3", debug=debug, lifespan=lifespan)
    init_events(app)
    on_event("order_placed")(lambda: time.sleep(0.15))
    async with connect(app, "lifespan") as server:
        await server.say("lifespan.startup")
        assert (await server.hear())["type"] == "lifespan.startup.complete"
        emit_event("order_placed")
        await server.say("lifespan.shutdown")
        assert (await server.hear())["type"] == "lifespan.shutdown.complete"
    assert story == ["open", "startup of 1.2.3", "close"]
    assert bool(caplog.records) is debug


# The dependency


@pytest.mark.parametrize("path", ["", "/mounted", "/mounted with events"])
@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_endpoints_are_given_the_dispatcher_of_the_request(
    app: FastAPI, heard: Heard, client_of: ClientOf, path: str, kind: str
) -> None:
    """In mounted applications it is that of the outermost, with or without their own events."""
    inner = FastAPI()
    if "with" in path:
        init_events(inner)
    if path:
        add_routes(inner)
        app.mount(path, inner)
    async with client_of(app) as client:
        answer = await client.get(f"{path}/{kind}/200", headers={**R_17, "User-Agent": "test"})
    assert answer.json() == "deferred"
    assert heard[0].context == {
        "number": 1,
        "request_id": "r-17",
        "ip_address": "192.0.2.1",
        "user_agent": "test",
    }
    assert len(heard) == 1


async def test_websockets_are_given_it_and_emit_at_once(
    app: FastAPI, heard: Heard, connect: Connect
) -> None:
    async with connect(app, "websocket", "/talk") as connection:
        await connection.say("websocket.connect")
        assert (await connection.hear())["type"] == "websocket.accept"
        assert (await connection.hear())["text"] == "done"
    assert heard[0].context["ip_address"] == "192.0.2.1"


async def test_an_application_without_events_is_told_how_to_get_them(connect: Connect) -> None:
    app = FastAPI()
    add_routes(app)
    transport = httpx.ASGITransport(app)  # which lets through what the application raises
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as client:
        with pytest.raises(RuntimeError, match=r"call init_events\(app\)"):
            await client.get("/async/200")


# Requests


@pytest.mark.parametrize("path", ["/async/503", "/plain/500", "/handled"])
async def test_a_request_that_fails_emits_nothing(
    app: FastAPI, heard: Heard, client_of: ClientOf, path: str
) -> None:
    """However it fails; a handler of its exception is a part of it."""

    @app.get("/handled")
    async def handled(events: Events) -> None:
        events.emit("order_placed", number=1)
        raise BlockingIOError

    @app.exception_handler(BlockingIOError)
    async def answer(request: Request, error: Exception) -> Response:
        emit_event("order_placed", number=2)
        return Response(status_code=502)

    async with client_of(app) as client:
        assert (await client.get(path)).status_code >= 500
        assert heard == []
        assert (await client.get("/async/404")).status_code == 404  # which is no failure
    assert numbers(heard) == [1]


async def test_a_handler_for_every_exception_is_outside_of_the_request(
    app: FastAPI, heard: Heard, client_of: ClientOf
) -> None:
    @app.exception_handler(Exception)
    async def answer(request: Request, error: Exception) -> Response:
        emit_event("order_placed", number=2)
        return Response("sorry", status_code=500)

    async with client_of(app) as client:
        assert (await client.get("/plain/500")).text == "sorry"
    assert [it.context for it in heard] == [{"number": 2}]


async def test_a_transaction_of_a_dependency_is_committed_before_its_events_go_out(
    app: FastAPI, client_of: ClientOf
) -> None:
    """If its end is the function's; FastAPI's own choice is the end of the request."""
    order_of_things: list[str] = []
    on_event("order_placed")(lambda: order_of_things.append("told"))

    async def transaction() -> AsyncIterator[None]:
        yield
        order_of_things.append("committed")

    @app.get("/")
    async def order(
        events: Events, session: Annotated[None, Depends(transaction, scope="function")]
    ) -> None:
        events.emit("order_placed", number=1)

    async with client_of(app) as client:
        await client.get("/")
    assert order_of_things == ["committed", "told"]


async def test_background_tasks_are_a_part_of_the_request_of_their_own(
    app: FastAPI, heard: Heard, client_of: ClientOf
) -> None:
    """What they emit goes out when they have ended well, and is dropped if they have not."""

    @app.get("/")
    async def order(fails: bool, events: Events, tasks: BackgroundTasks) -> None:
        def work() -> None:
            assert numbers(heard) == [1]
            events.emit("order_placed", number=2)
            if fails:
                raise LookupError

        events.emit("order_placed", number=1)
        tasks.add_task(work)

    for fails, expected in ((False, [1, 2]), (True, [1])):
        heard.clear()
        async with client_of(app) as client:
            await client.get("/", params={"fails": fails}, headers=R_17)
        assert numbers(heard) == expected
        assert {it.context["request_id"] for it in heard} == {"r-17"}


async def test_async_handlers_use_the_servers_loop_wherever_it_is_emitted(
    app: FastAPI, connect: Connect, client_of: ClientOf
) -> None:
    """Where the application's pools are, though a plain endpoint runs in a thread."""
    loops = []

    @on_event("order_placed", background=True)
    async def use() -> None:
        loops.append(asyncio.get_running_loop())

    async with connect(app, "lifespan") as server:
        await server.say("lifespan.startup")
        await server.hear()
        async with client_of(app) as client:
            await client.get("/plain/200")
        await asyncio.to_thread(emit_event, "order_placed", number=1)
        await server.say("lifespan.shutdown")
        await server.hear()
    assert loops == [asyncio.get_running_loop()] * 2


# Other middleware


async def pass_on(request: Request, go_on: Callable[..., Any]) -> Response:
    response: Response = await go_on(request)
    return response


OTHERS: dict[Any, dict[str, Any]] = {
    BaseHTTPMiddleware: {"dispatch": pass_on},  # runs the application in a task of its own
    CORSMiddleware: {"allow_origins": ["*"]},
    GZipMiddleware: {"minimum_size": 0},
    SessionMiddleware: {"secret_key": "key"},
    TrustedHostMiddleware: {},
}


@pytest.mark.parametrize("is_added_first", [True, False])
@pytest.mark.parametrize("other", OTHERS, ids=lambda it: it.__name__)
async def test_it_stands_beside_other_middleware(
    heard: Heard, client_of: ClientOf, other: Any, is_added_first: bool
) -> None:
    """Wherever that is added; a stream that breaks drops what it has emitted then."""
    app = FastAPI()
    add_routes(app)
    if is_added_first:
        app.add_middleware(other, **OTHERS[other])
    init_events(app)
    if not is_added_first:
        app.add_middleware(other, **OTHERS[other])
    expected = {
        "/async/200": [1],
        "/async/503": [],
        "/plain/200": [1],
        "/plain/500": [],
        "/stream/200": [1, 2],
        "/stream/500": [1],
    }
    headers = {**R_17, "Origin": "http://shop.test", "Accept-Encoding": "gzip"}
    async with client_of(app) as client:
        for path, went_out in expected.items():
            heard.clear()
            await client.get(path, headers=headers)
            assert (path, numbers(heard)) == (path, went_out)
            assert {it.context["request_id"] for it in heard} <= {"r-17"}
