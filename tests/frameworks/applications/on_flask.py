"""Orders with Flask."""

import asyncio
import time
from typing import Any

import shared
from flask import (
    Flask,
    Response,
    abort,
    has_request_context,
    request,
    send_file,
    stream_with_context,
)
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from madcrow_events import emit_event
from madcrow_events.contrib.wsgi import EventsMiddleware

app = Flask(__name__)


@app.get("/emit/<int:status>")
def emit(status: int) -> Any:
    shared.emit(request.args.get("n", 1, int))
    return b"", status


@app.get("/twice")
def twice() -> str:
    shared.emit(int(request.args["n"]))
    time.sleep(0.02)
    shared.emit(int(request.args["n"]))
    return ""


@app.get("/raise")
def fail() -> str:
    shared.emit(1)
    raise LookupError


@app.get("/abort/<int:status>")
def refuse(status: int) -> None:
    shared.emit(1)
    abort(status)


@app.get("/handled/<int:status>")
def handled(status: int) -> None:
    shared.emit(1)
    raise shared.Handled(status)


@app.errorhandler(shared.Handled)
def handle(error: Any) -> Any:
    shared.emit(8)
    return b"", error.args[0]


@app.errorhandler(500)
def handle_all(error: Any) -> Any:
    shared.emit(9)
    return b"", request.args.get("answer", 500, int)


@app.get("/stream")
def stream() -> Response:
    shared.emit(1)
    then = request.args.get("then", "last")
    parts = (part for part in shared.parts(then) if request.path == "/stream")
    response = Response(stream_with_context(parts))
    if "length" in request.args:
        response.content_length = int(request.args["length"])
    return response


@app.get("/file")
def file() -> Response:
    shared.emit(1)
    return send_file(shared.FILE)


@app.get("/after/<how>")
def after(how: str) -> Response:
    shared.emit(1)
    response = Response()

    @response.call_on_close
    def close() -> None:
        shared.emit(2)
        if how == "badly":
            raise LookupError

    return response


@app.get("/async")
async def alone() -> str:
    shared.emit(1)
    await asyncio.to_thread(shared.emit, 2)
    return ""


@app.get("/work")
def work() -> str:
    emit_event("work_given")
    return ""


inner = DispatcherMiddleware(app.wsgi_app, {"/mounted": EventsMiddleware(app.wsgi_app)})
app.wsgi_app = shared.OutsideOfWSGI(  # type: ignore[method-assign]
    EventsMiddleware(inner), has_request_context
)
