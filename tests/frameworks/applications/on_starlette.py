"""Orders with Starlette, and our middleware at several places among others."""

import asyncio
import os
from collections.abc import Callable
from typing import Any

import shared
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from madcrow_events import emit_event
from madcrow_events.contrib.asgi import EventsMiddleware


async def emit(request: Request) -> Response:
    shared.emit(int(request.query_params.get("n", "1")))
    return Response(b"." * 1000, request.path_params["status"])


async def twice(request: Request) -> Response:
    shared.emit(int(request.query_params["n"]))
    await asyncio.sleep(0.02)
    await asyncio.to_thread(shared.emit, int(request.query_params["n"]))
    return Response()


async def fail(request: Request) -> Response:
    shared.emit(1)
    raise LookupError


async def abort(request: Request) -> Response:
    shared.emit(1)
    raise HTTPException(request.path_params["status"])


async def handled(request: Request) -> Response:
    shared.emit(1)
    raise shared.Handled(request.path_params["status"])


async def handle(request: Request, error: Any) -> Response:
    shared.emit(8)
    return Response(status_code=error.args[0])


async def handle_all(request: Request, error: Exception) -> Response:
    shared.emit(9)
    return Response(status_code=int(request.query_params.get("answer", "500")))


async def stream(request: Request) -> Response:
    shared.emit(1)
    length = request.query_params.get("length")
    headers = {"Content-Length": length} if length else None
    then = request.query_params.get("then", "last")
    return StreamingResponse(shared.parts_async(then), headers=headers)


async def file(request: Request) -> Response:
    shared.emit(1)
    return FileResponse(shared.FILE)


async def after(request: Request) -> Response:
    shared.emit(1)

    async def task() -> None:
        shared.emit(2)
        if request.path_params["how"] == "badly":
            raise LookupError

    return Response(background=BackgroundTask(task))


async def work(request: Request) -> Response:
    emit_event("work_given")
    return Response()


async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    shared.emit(1)
    await websocket.send_text("placed")
    await websocket.receive_text()
    shared.emit(2)
    raise LookupError


async def pass_on(request: Request, go_on: Callable[..., Any]) -> Any:
    return await go_on(request)


def make(*middleware: Middleware) -> Starlette:
    app = Starlette(
        routes=[
            Route("/emit/{status:int}", emit),
            Route("/twice", twice),
            Route("/raise", fail),
            Route("/abort/{status:int}", abort),
            Route("/handled/{status:int}", handled),
            Route("/stream", stream),
            Route("/file", file),
            Route("/after/{how}", after),
            Route("/work", work),
            WebSocketRoute("/talk", talk),
        ],
        exception_handlers={shared.Handled: handle, 500: handle_all},
        middleware=middleware,
    )
    app.router.routes.append(Mount("/mounted", EventsMiddleware(app)))
    return app


ours = Middleware(EventsMiddleware)
other = Middleware(BaseHTTPMiddleware, dispatch=pass_on)
gzip = Middleware(GZipMiddleware, minimum_size=1)
stacks: dict[str, Any] = {
    "added": make(ours),
    "around": make(other, ours),
    "inside": make(ours, other),
    "both": make(ours, other, ours),
    "gzip-around": make(gzip, ours),
    "gzip-inside": make(ours, gzip),
}
application = shared.OutsideOfASGI(
    stacks.get(os.environ.get("STACK", "")) or EventsMiddleware(make()), **stacks
)
