"""The adapter: what an application gets from `init_events`, seen from outside."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi_app import events as adapter
from fastapi_app.events import Events, init_events
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect

from madcrow_events import (
    Emission,
    EventDispatcher,
    HandlerErrors,
    emit_event,
    get_event_dispatcher,
    madcrow_signals,
    on_event,
    set_event_dispatcher,
)
from madcrow_events.event_handlers.security_handlers import security_group

Heard = list[Emission]
ClientOf = Callable[[FastAPI], httpx.AsyncClient]
Connect = Callable[..., Any]


@pytest.fixture
def app(heard: Heard) -> FastAPI:
    app = FastAPI(version="1.2.3")
    init_events(app)
    return app


def numbers(heard: Heard) -> list[int]:
    return [emission.context["number"] for emission in heard]


# Setting up


def test_it_sets_the_dispatcher_and_registers_the_ready_made_handlers(app: FastAPI) -> None:
    assert app.state.event_dispatcher is get_event_dispatcher()
    assert security_group in {s.origin for s in madcrow_signals.subscriptions}


def test_a_second_call_for_one_application_is_refused(app: FastAPI) -> None:
    with pytest.raises(RuntimeError, match="call it once"):
        init_events(app)
    init_events(FastAPI())  # another application is another matter


def test_plugins_are_loaded_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(adapter, "load_plugins", lambda signals: calls.append("loaded"))
    init_events(FastAPI())
    assert calls == []
    init_events(FastAPI(), plugins=True)
    assert calls == ["loaded"]


# Scopes


async def scope_of(client: httpx.AsyncClient, heard: Heard, headers: Any = None) -> dict[str, Any]:
    assert (await client.get("/order", headers=headers)).status_code == 200
    return dict(heard[-1].context)


@pytest.fixture
def orders() -> Callable[[FastAPI], FastAPI]:
    def add(app: FastAPI) -> FastAPI:
        @app.get("/order")
        async def order(events: Events) -> None:
            events.emit("order_placed", number=1)

        return app

    return add


async def test_an_event_knows_request_id_address_and_user_agent(
    app: FastAPI, heard: Heard, client_of: ClientOf, orders: Callable[[FastAPI], FastAPI]
) -> None:
    headers = {"X-Request-ID": "r-17", "User-Agent": "curl/8"}
    async with client_of(orders(app)) as client:
        context = await scope_of(client, heard, headers)
    assert context == {
        "number": 1,
        "request_id": "r-17",
        "ip_address": "192.0.2.1",
        "user_agent": "curl/8",
    }


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 129, "id\u00e9", "<script>"])
async def test_a_request_without_a_proper_id_gets_a_new_one(
    app: FastAPI,
    heard: Heard,
    client_of: ClientOf,
    orders: Callable[[FastAPI], FastAPI],
    given: str | None,
) -> None:
    headers = {} if given is None else {"X-Request-ID": given.encode("latin-1")}
    async with client_of(orders(app)) as client:
        first = await scope_of(client, heard, headers)
        second = await scope_of(client, heard, headers)
    assert len(first["request_id"]) == 32
    assert first["request_id"] != second["request_id"]


async def test_a_long_user_agent_is_cut_and_none_is_left_out(
    app: FastAPI, heard: Heard, client_of: ClientOf, orders: Callable[[FastAPI], FastAPI]
) -> None:
    async with client_of(orders(app)) as client:
        long = await scope_of(client, heard, {"User-Agent": "x" * 1000})
        none = await scope_of(client, heard, {"User-Agent": ""})
    assert long["user_agent"] == "x" * 256
    assert "user_agent" not in none


async def test_a_proxy_is_believed_only_when_told(
    heard: Heard, client_of: ClientOf, orders: Callable[[FastAPI], FastAPI]
) -> None:
    addresses = {}
    for trusted in ((), ("192.0.2.0/24",), ("203.0.113.9",)):
        app = orders(FastAPI())
        init_events(app, trusted_proxies=trusted)
        async with client_of(app) as client:
            context = await scope_of(client, heard, {"X-Forwarded-For": "6.6.6.6, 198.51.100.4"})
        addresses[trusted] = context["ip_address"]
    assert addresses == {
        (): "192.0.2.1",
        ("192.0.2.0/24",): "198.51.100.4",  # what the proxy added, not what the client made up
        ("203.0.113.9",): "192.0.2.1",
    }


async def test_200_concurrent_requests_keep_their_scopes_apart(
    app: FastAPI, heard: Heard, client_of: ClientOf
) -> None:
    everyone = asyncio.Barrier(200)

    @app.get("/{number}")
    async def order(number: int, events: Events) -> None:
        await everyone.wait()
        await events.emit_async("order_placed", number=number)
        await asyncio.sleep(0)
        await asyncio.to_thread(emit_event, "order_placed", number=number)

    async with client_of(app) as client:
        await asyncio.gather(
            *(client.get(f"/{n}", headers={"X-Request-ID": f"r-{n}"}) for n in range(200))
        )
    assert len(heard) == 400
    assert all(e.context["request_id"] == f"r-{e.context['number']}" for e in heard)


# Deferral


async def test_events_go_out_when_the_request_has_succeeded_and_before_it_is_answered(
    app: FastAPI, heard: Heard, connect: Connect
) -> None:
    seen: list[int] = []

    @app.get("/")
    async def order(events: Events) -> None:
        events.emit("order_placed", number=1)
        emit_event("order_placed", number=2)
        seen.append(len(heard))

    async with connect(app) as connection:
        assert (await connection.hear())["type"] == "http.response.start"
        assert not (await connection.hear()).get("more_body")
        assert seen == [0]
        assert numbers(heard) == [1, 2]


async def test_a_sync_endpoint_is_held_back_as_an_async_one_is(
    app: FastAPI, heard: Heard, client_of: ClientOf
) -> None:
    @app.get("/{number}")
    def order(number: int, events: Events) -> int:
        events.emit("order_placed", number=number)
        if number == 2:
            raise LookupError
        return len(heard)

    async with client_of(app) as client:
        assert (await client.get("/1")).json() == 0
        assert (await client.get("/2")).status_code == 500
    assert numbers(heard) == [1]


async def test_what_failed_emits_nothing(app: FastAPI, heard: Heard, client_of: ClientOf) -> None:
    """An exception, a status of 500 or above however it is made, and no answer at all."""

    @app.get("/raised")
    async def raised(events: Events) -> None:
        events.emit("order_placed", number=1)
        raise LookupError

    @app.get("/returned")
    async def returned(events: Events) -> Response:
        events.emit("order_placed", number=2)
        return Response(status_code=503)

    @app.get("/aborted")
    async def aborted(events: Events) -> None:
        events.emit("order_placed", number=3)
        raise HTTPException(500)

    @app.get("/handled")
    async def handled(events: Events) -> None:
        events.emit("order_placed", number=4)
        raise BlockingIOError

    @app.exception_handler(BlockingIOError)
    async def answer(request: Request, error: Exception) -> Response:
        emit_event("order_placed", number=5)
        return Response(status_code=502)

    @app.get("/unanswered")
    async def unanswered(events: Events) -> Response:
        events.emit("order_placed", number=6)
        return Silent()

    class Silent(Response):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            pass

    async with client_of(app) as client:
        paths = ("raised", "returned", "aborted", "handled")
        statuses = [(await client.get(path)).status_code for path in paths]
        with pytest.raises(AssertionError):  # the client's, that there is no answer
            await client.get("/unanswered")
    assert statuses == [500, 503, 500, 502]
    assert heard == []


async def test_a_handler_for_every_exception_answers_and_nothing_goes_out(
    app: FastAPI, heard: Heard, client_of: ClientOf
) -> None:
    @app.exception_handler(Exception)
    async def answer(request: Request, error: Exception) -> Response:
        return JSONResponse({"sorry": True}, status_code=500)

    @app.get("/")
    async def order(events: Events) -> None:
        events.emit("order_placed", number=1)
        raise LookupError

    async with client_of(app) as client:
        assert (await client.get("/")).json() == {"sorry": True}
    assert heard == []


@pytest.mark.parametrize("status", [400, 404, 499])
async def test_a_refusal_is_no_failure(
    app: FastAPI, heard: Heard, client_of: ClientOf, status: int
) -> None:
    """Else nobody would ever hear of a sign-in that failed."""

    @app.get("/")
    async def refuse(events: Events) -> None:
        events.emit("order_placed", number=1)
        raise HTTPException(status)

    async with client_of(app) as client:
        assert (await client.get("/")).status_code == status
    assert numbers(heard) == [1]


async def test_a_cancelled_request_drops_its_events(
    app: FastAPI, heard: Heard, connect: Connect
) -> None:
    emitted = asyncio.Event()

    @app.get("/")
    async def order(events: Events) -> None:
        events.emit("order_placed", number=1)
        emitted.set()
        await asyncio.sleep(60)

    async with connect(app):
        await emitted.wait()
    assert heard == []


async def test_a_broken_handler_costs_no_request(
    app: FastAPI, heard: Heard, client_of: ClientOf, orders: Callable[[FastAPI], FastAPI]
) -> None:
    @on_event("order_placed", priority=1)
    def broken() -> None:
        raise LookupError

    async with client_of(orders(app)) as client:
        assert (await client.get("/order")).status_code == 200
    assert numbers(heard) == [1]


async def test_a_full_queue_is_waited_for(heard: Heard, client_of: ClientOf) -> None:
    """Of what a plain endpoint has emitted nothing is lost, and the event loop goes on."""
    may_go_on = threading.Event()
    done: list[int] = []
    set_event_dispatcher(EventDispatcher(queue_size=1, max_workers=1))
    app = FastAPI()
    init_events(app)

    @on_event("order_placed", background=True)
    def slow(number: int) -> None:
        assert may_go_on.wait(5)
        done.append(number)

    @app.get("/")
    def order(events: Events) -> str:
        for number in range(5):
            events.emit("order_placed", number=number)
        return "placed"

    async with client_of(app) as client:
        asyncio.get_running_loop().call_later(0.05, may_go_on.set)
        assert (await client.get("/")).json() == "placed"
    assert await get_event_dispatcher().drain_async(5)
    assert numbers(heard) == done == [0, 1, 2, 3, 4]


async def test_a_strict_dispatcher_raises_to_the_server(heard: Heard, connect: Connect) -> None:
    set_event_dispatcher(EventDispatcher(on_error="raise"))
    app = FastAPI()
    init_events(app)

    @on_event("order_placed")
    def broken() -> None:
        raise LookupError

    @app.get("/")
    async def order(events: Events) -> None:
        events.emit("order_placed", number=1)
        events.emit("order_placed", number=2)

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as client:
        with pytest.raises(HandlerErrors):
            await client.get("/")


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


# Streaming, background tasks, websockets, other middleware


async def test_the_first_part_of_a_stream_arrives_before_the_last_is_made(
    app: FastAPI, heard: Heard, connect: Connect
) -> None:
    may_go_on = asyncio.Event()

    @app.get("/")
    async def stream(events: Events) -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            events.emit("order_placed", number=1)
            yield "first"
            await may_go_on.wait()
            yield "last"

        return StreamingResponse(parts())

    async with connect(app) as connection:
        assert (await connection.hear())["type"] == "http.response.start"
        assert (await connection.hear())["body"] == b"first"
        assert heard == []  # held back until the stream has ended well
        may_go_on.set()
        assert (await connection.hear())["body"] == b"last"
        assert not (await connection.hear())["more_body"]
        assert numbers(heard) == [1]


async def test_a_stream_that_breaks_emits_nothing(
    app: FastAPI, heard: Heard, client_of: ClientOf
) -> None:
    @app.get("/")
    async def stream(events: Events) -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            events.emit("order_placed", number=1)
            yield "first"
            raise LookupError

        return StreamingResponse(parts())

    async with client_of(app) as client:
        await client.get("/")
    assert heard == []


async def test_what_a_background_task_emits_goes_out_when_all_have_ended_well(
    app: FastAPI, heard: Heard, client_of: ClientOf
) -> None:
    seen: list[list[int]] = []

    @app.get("/{ends_well}")
    async def order(ends_well: bool, events: Events, tasks: BackgroundTasks) -> None:
        events.emit("order_placed", number=1)

        def task() -> None:
            seen.append(numbers(heard))
            events.emit("order_placed", number=2)
            if not ends_well:
                raise LookupError

        tasks.add_task(task)

    async with client_of(app) as client:
        await client.get("/true")
        assert (seen, numbers(heard)) == ([[1]], [1, 2])
        heard.clear()
        await client.get("/false")
        assert numbers(heard) == [1]


async def test_async_handlers_of_what_a_background_task_emits_are_awaited(
    app: FastAPI, client_of: ClientOf
) -> None:
    ended: list[str] = []

    @on_event("order_placed")
    async def slow() -> None:
        await asyncio.sleep(0.05)
        ended.append("slow")

    @app.get("/")
    async def order(events: Events, tasks: BackgroundTasks) -> None:
        tasks.add_task(events.emit_async, "order_placed", number=1)

    async with client_of(app) as client:
        await client.get("/")
    assert ended == ["slow"]


async def test_a_websocket_has_the_scope_and_its_events_go_out_at_once(
    app: FastAPI, heard: Heard, connect: Connect
) -> None:
    @app.websocket("/")
    async def talk(websocket: WebSocket, events: Events) -> None:
        await websocket.accept()
        events.emit("order_placed", number=1)
        await websocket.send_text("placed")
        await websocket.receive()
        raise LookupError

    async with connect(app, "websocket") as connection:
        await connection.say("websocket.connect")
        assert (await connection.hear())["type"] == "websocket.accept"
        assert (await connection.hear())["text"] == "placed"
        (emission,) = heard
        assert emission.context["ip_address"] == "192.0.2.1"
        assert emission.context["user_agent"] == "test"


@pytest.mark.parametrize("is_added_first", [True, False])
async def test_it_stands_beside_middleware_of_the_other_kind(
    heard: Heard, client_of: ClientOf, is_added_first: bool
) -> None:
    """`BaseHTTPMiddleware` runs the application in a task of its own."""
    app = FastAPI()

    async def pass_on(request: Request, go_on: Callable[..., Any]) -> Response:
        response: Response = await go_on(request)
        return response

    if is_added_first:
        app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    init_events(app)
    if not is_added_first:
        app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)

    @app.get("/{number}")
    def order(number: int, events: Events) -> None:
        events.emit("order_placed", number=number)
        if number == 2:
            raise LookupError

    async with client_of(app) as client:
        await client.get("/1", headers={"X-Request-ID": "r-1"})
        await client.get("/2")
    assert numbers(heard) == [1]
    assert heard[0].context["request_id"] == "r-1"


# Start and end


@pytest.fixture
def story() -> list[Any]:
    story: list[Any] = []

    @on_event("system_startup")
    async def start(version: str, process_id: int) -> None:
        await asyncio.sleep(0)
        story.append(f"system_startup {version}")

    @on_event("system_shutdown")
    async def stop(uptime: float, reason: str) -> None:
        story.append("system_shutdown")
        assert uptime >= 0
        assert reason

    return story


async def test_an_existing_lifespan_is_kept_and_stands_around(
    story: list[Any], connect: Connect
) -> None:
    madcrow_signals.signal("order_placed")

    @on_event("order_placed", background=True)
    async def slow() -> None:
        await asyncio.sleep(0.1)
        story.append("drained")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, int]]:
        story.append("opened")
        yield {"answer": 42}
        story.append("closed")

    app = FastAPI(version="1.2.3", lifespan=lifespan)
    init_events(app)
    async with connect(app, "lifespan") as connection:
        await connection.say("lifespan.startup")
        assert (await connection.hear())["type"] == "lifespan.startup.complete"
        assert story == ["opened", "system_startup 1.2.3"]
        emit_event("order_placed")
        await connection.say("lifespan.shutdown")
        assert (await connection.hear())["type"] == "lifespan.shutdown.complete"
    assert story[2:] == ["system_shutdown", "drained", "closed"]


async def test_what_the_lifespan_emits_at_its_end_is_waited_for(
    story: list[Any], connect: Connect
) -> None:
    madcrow_signals.signal("order_placed")

    @on_event("order_placed", background=True)
    async def slow() -> None:
        await asyncio.sleep(0.05)
        story.append("drained")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        emit_event("order_placed")

    app = FastAPI(lifespan=lifespan)
    init_events(app)
    async with connect(app, "lifespan") as connection:
        await connection.say("lifespan.startup")
        await connection.say("lifespan.shutdown")
        await connection.hear()
        await connection.hear()
    assert story[-1] == "drained"


@pytest.mark.parametrize("background", [True, False])
async def test_async_handlers_use_the_servers_loop_wherever_it_is_emitted(
    heard: Heard, connect: Connect, client_of: ClientOf, background: bool
) -> None:
    """Where the application's pools are: a plain endpoint, a websocket's thread, one of its own."""
    lock = asyncio.Lock()  # another loop would fail with it, for it is waited for
    used: list[asyncio.AbstractEventLoop] = []

    @on_event("order_placed", background=background)
    async def use(emission: Emission) -> None:
        async with lock:
            used.append(asyncio.get_running_loop())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(emit_event, "order_placed", number=1)
        yield

    app = FastAPI(lifespan=lifespan)
    init_events(app)

    @app.get("/")
    def order(events: Events) -> None:
        events.emit("order_placed", number=2)
        thread = threading.Thread(target=events.emit, args=("order_placed",), kwargs={"number": 3})
        thread.start()
        thread.join()

    @app.websocket("/")
    async def talk(websocket: WebSocket, events: Events) -> None:
        await websocket.accept()
        await asyncio.to_thread(events.emit, "order_placed", number=4)
        await websocket.send_text("placed")
        await websocket.receive()

    await lock.acquire()
    async with connect(app, "lifespan") as server:
        await server.say("lifespan.startup")
        await server.hear()
        async with client_of(app) as client:
            assert (await client.get("/")).status_code == 200
        async with connect(app, "websocket") as connection:
            await connection.say("websocket.connect")
            assert (await connection.hear())["type"] == "websocket.accept"
            assert (await connection.hear())["text"] == "placed"
        lock.release()
        assert await get_event_dispatcher().drain_async(5)
        assert used == [asyncio.get_running_loop()] * 4
        await server.say("lifespan.shutdown")
        assert (await server.hear())["type"] == "lifespan.shutdown.complete"
    assert sorted(numbers(heard)) == [1, 2, 3, 4]


@pytest.mark.parametrize("ends", ["in order", "in reverse"])
async def test_an_application_that_ends_leaves_the_loop_to_the_other_that_shares_its_dispatcher(
    heard: Heard, connect: Connect, ends: str
) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    @on_event("order_placed", background=True)
    async def note() -> None:
        loops.append(asyncio.get_running_loop())

    async with contextlib.AsyncExitStack() as stack:
        servers = []
        for _ in range(2):
            app = FastAPI()
            init_events(app)
            servers.append(await stack.enter_async_context(connect(app, "lifespan")))
            await servers[-1].say("lifespan.startup")
            await servers[-1].hear()
        for server in servers if ends == "in order" else reversed(servers):
            await asyncio.to_thread(emit_event, "order_placed", number=1)
            await server.say("lifespan.shutdown")
            await server.hear()
    await asyncio.to_thread(emit_event, "order_placed", number=1)
    assert await get_event_dispatcher().drain_async(5)
    assert [loop is asyncio.get_running_loop() for loop in loops] == [True, True, False]


async def test_a_start_that_failed_is_not_announced(story: list[Any], connect: Connect) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if app.title:
            raise LookupError
        yield

    app = FastAPI(lifespan=lifespan)
    init_events(app)
    async with connect(app, "lifespan") as connection:
        await connection.say("lifespan.startup")
        assert (await connection.hear())["type"] == "lifespan.startup.failed"
    assert story == []


@pytest.mark.parametrize("event", ["order_placed", "system_shutdown"])
async def test_a_handler_that_does_not_end_cannot_hold_the_end_up(
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    event: str,
) -> None:
    monkeypatch.setattr(adapter, "DRAIN_BEFORE", 0.05)
    monkeypatch.setattr(adapter, "DRAIN_AFTER", 0.05)
    madcrow_signals.signal("order_placed")
    app = FastAPI()
    init_events(app)

    @on_event(event)
    async def endless() -> None:
        await asyncio.sleep(60)

    async with connect(app, "lifespan") as connection:
        await connection.say("lifespan.startup")
        await connection.hear()
        get_event_dispatcher().emit("order_placed")
        await connection.say("lifespan.shutdown")
        assert (await connection.hear())["type"] == "lifespan.shutdown.complete"
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "raise DRAIN_BEFORE" in warnings[0].getMessage()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


# Applications within others, clients that leave, and the end


async def test_a_mounted_application_is_a_part_of_the_request(
    heard: Heard, client_of: ClientOf, orders: Callable[[FastAPI], FastAPI]
) -> None:
    """With events of its own or without: one request, one id."""
    app = FastAPI()
    init_events(app)
    inner = FastAPI()
    init_events(inner)
    app.mount("/with", orders(inner))
    app.mount("/without", orders(FastAPI()))
    async with client_of(app) as client:
        for name in ("with", "without"):
            answer = await client.get(f"/{name}/order", headers={"X-Request-ID": name})
            assert answer.status_code == 200
    assert [emission.context["request_id"] for emission in heard] == ["with", "without"]


async def test_an_application_without_events_is_told_how_to_get_them() -> None:
    app = FastAPI()

    @app.get("/")
    def order(events: Events) -> None: ...

    transport = httpx.ASGITransport(app)  # which lets through what the application raises
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as client:
        with pytest.raises(RuntimeError, match="init_events"):
            await client.get("/")


@pytest.mark.parametrize("leaves_at", [1, 2, 3])
async def test_a_client_that_has_left_is_no_failure(heard: Heard, leaves_at: int) -> None:
    """A server may tell so where the next part of the answer is sent, the first or a later one."""
    app = FastAPI()
    init_events(app)

    @app.get("/")
    def stream(events: Events) -> StreamingResponse:
        events.emit("order_placed", number=1)
        return StreamingResponse(iter(["a", "b", "c"]))

    sent = 0

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_message: Any) -> None:
        nonlocal sent
        sent += 1
        if sent == leaves_at:
            raise OSError

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [],
    }
    with contextlib.suppress(OSError, ClientDisconnect):
        await app(scope, receive, send)
    assert numbers(heard) == [1]


async def test_a_handler_that_fails_at_the_end_keeps_nothing_open(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """Though the dispatcher raises what it raised: the lifespan ends, and the failure is told."""
    set_event_dispatcher(EventDispatcher(on_error="raise"))
    closed: list[bool] = []

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        closed.append(True)

    app = FastAPI(lifespan=lifespan)
    init_events(app)

    @on_event("system_shutdown")
    def broken() -> None:
        raise LookupError

    async with connect(app, "lifespan") as server:
        await server.say("lifespan.startup")
        assert (await server.hear())["type"] == "lifespan.startup.complete"
        await server.say("lifespan.shutdown")
        assert (await server.hear())["type"] == "lifespan.shutdown.complete"
    assert closed == [True]
    assert "could not be told to all handlers" in caplog.text
