"""Orders with FastAPI; plain functions, which run in threads."""

import time
from collections.abc import Iterator
from typing import Annotated

import shared
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse

from madcrow_events import emit_event
from madcrow_events.contrib.asgi import EventsMiddleware

app = FastAPI()


@app.get("/emit/{status}")
@app.head("/emit/{status}")
def emit(status: int, n: int = 1) -> Response:
    shared.emit(n)
    return Response(status_code=status)


@app.get("/twice")
def twice(n: int) -> None:
    shared.emit(n)
    time.sleep(0.02)
    shared.emit(n)


@app.get("/raise")
def fail() -> None:
    shared.emit(1)
    raise LookupError


@app.get("/abort/{status}")
def abort(status: int) -> None:
    shared.emit(1)
    raise HTTPException(status)


@app.get("/handled/{status}")
def handled(status: int) -> None:
    shared.emit(1)
    raise shared.Handled(status)


@app.exception_handler(shared.Handled)
def handle(request: Request, error: Exception) -> Response:
    shared.emit(8)
    return Response(status_code=error.args[0])


@app.exception_handler(Exception)
def handle_all(request: Request, error: Exception) -> Response:
    shared.emit(9)
    return JSONResponse(None, int(request.query_params.get("answer", "500")))


@app.get("/stream")
@app.head("/stream")
def stream(then: str = "last", length: int = 0) -> StreamingResponse:
    shared.emit(1)
    headers = {"Content-Length": str(length)} if length else None
    return StreamingResponse(shared.parts(then), headers=headers)


@app.get("/file")
def file() -> FileResponse:
    shared.emit(1)
    return FileResponse(shared.FILE)


@app.get("/after/{how}")
def after(how: str, tasks: BackgroundTasks) -> None:
    shared.emit(1)

    def task() -> None:
        shared.emit(2)
        if how == "badly":
            raise LookupError

    tasks.add_task(task)


def transaction() -> Iterator[None]:
    yield
    shared.note("committed")


@app.get("/transaction")
def order(session: Annotated[None, Depends(transaction, scope="function")]) -> None:
    shared.emit(1)


@app.get("/work")
def work() -> None:
    emit_event("work_given")


@app.websocket("/talk")
async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    shared.emit(1)
    await websocket.send_text("placed")
    await websocket.receive_text()
    shared.emit(2)
    raise LookupError


app.mount("/mounted", EventsMiddleware(app))
application = shared.OutsideOfASGI(EventsMiddleware(app))
