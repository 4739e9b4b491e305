"""Orders with Quart."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import shared
from quart import (
    Quart,
    Response,
    abort,
    has_request_context,
    request,
    send_file,
    stream_with_context,
    websocket,
)

from madcrow_events import emit_event
from madcrow_events.contrib.asgi import EventsMiddleware

app = Quart(__name__)


@app.get("/emit/<int:status>")
async def emit(status: int) -> Any:
    shared.emit(request.args.get("n", 1, int))
    return b"", status


@app.get("/twice")
async def twice() -> str:
    shared.emit(int(request.args["n"]))
    await asyncio.sleep(0.02)
    await asyncio.to_thread(shared.emit, int(request.args["n"]))
    return ""


@app.get("/raise")
async def fail() -> str:
    shared.emit(1)
    raise LookupError


@app.get("/abort/<int:status>")
async def refuse(status: int) -> None:
    shared.emit(1)
    abort(status)


@app.get("/handled/<int:status>")
async def handled(status: int) -> None:
    shared.emit(1)
    raise shared.Handled(status)


@app.errorhandler(shared.Handled)
async def handle(error: Any) -> Any:
    shared.emit(8)
    return b"", error.args[0]


@app.errorhandler(500)
async def handle_all(error: Any) -> Any:
    shared.emit(9)
    return b"", request.args.get("answer", 500, int) if has_request_context() else 500


@app.get("/stream")
async def stream() -> Response:
    shared.emit(1)
    then = request.args.get("then", "last")

    @stream_with_context
    async def parts() -> AsyncIterator[bytes]:
        async for part in shared.parts_async(then):
            assert request.path == "/stream"
            yield part

    response = Response(parts())
    if "length" in request.args:
        response.content_length = int(request.args["length"])
    return response


@app.get("/file")
async def file() -> Response:
    shared.emit(1)
    return await send_file(shared.FILE)


@app.get("/after/<how>")
async def after(how: str) -> str:
    shared.emit(1)
    app.add_background_task(shared.emit, 2)
    return ""


@app.get("/work")
async def work() -> str:
    emit_event("work_given")
    return ""


@app.websocket("/talk")
async def talk() -> None:
    await websocket.accept()
    shared.emit(1)
    await websocket.send("placed")
    await websocket.receive()
    shared.emit(2)
    raise LookupError


application = shared.OutsideOfASGI(EventsMiddleware(shared.mounting(app)), has_request_context)
