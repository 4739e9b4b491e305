"""What the applications share: events, and handlers that write down what they are called with."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from madcrow_events import emit_event, madcrow_signals, on_event
from madcrow_events.contrib.asgi import EventsMiddleware

FOLDER = Path(os.environ["FOLDER"])
FILE = FOLDER / "file.bin"
ATTEMPTS = 2000
LOOPS: list[asyncio.AbstractEventLoop] = []

logging.basicConfig(format="%(levelname)s:%(name)s:%(message)s")
for name in ("order_placed", "outside", "work_given"):
    madcrow_signals.signal(name)


def note(event: str, **fields: Any) -> None:
    """Write down that a handler was called; in one piece, because processes share the file."""
    line = json.dumps({"event": event, "process": os.getpid(), **fields}) + "\n"
    with (FOLDER / "heard").open("ab", buffering=0) as file:
        file.write(line.encode())


@on_event("order_placed")
@on_event("outside")
def _(sender: object, **context: Any) -> None:
    note(str(sender), **context)


@on_event("system_startup")
@on_event("system_shutdown")
def _(sender: object, **context: Any) -> None:
    note(str(sender), id_of_process=context.get("process_id"))


@on_event("work_given", background=True)
def _() -> None:
    time.sleep(0.3)
    note("plain work done")


@on_event("work_given", background=True)
async def _() -> None:
    await asyncio.sleep(0.3)
    note("async work done", in_loop_of_server=asyncio.get_running_loop() in LOOPS)


def emit(number: int) -> None:
    """Place an order."""
    emit_event("order_placed", number=number)


def look_outside(*, in_request: bool = False) -> None:
    """Emit where no request is: no scope may be left, no deferral, no context of a framework."""
    state = emit_event("outside").state
    if state != "done" or in_request:
        note("leak", state=state, in_request=in_request)


class Handled(Exception):
    """What the applications have a handler for; its argument is the status of their answer."""


def _steps(then: str) -> Iterator[bytes | None]:
    """Yield the parts of a stream; None asks to wait a little."""
    emit(2)
    yield b"first"
    emit(3)
    for _ in range(ATTEMPTS):
        if (FOLDER / "go").exists():
            break
        yield None
    if then == "break":
        raise LookupError
    if then == "more":  # until nobody takes it
        for _ in range(ATTEMPTS):
            yield b" " * 65536
            yield None
    emit(4)
    yield b"last!"


def parts(then: str) -> Iterator[bytes]:
    """Yield "first", wait for the test, and yield "last!" (or much more, or break)."""
    for part in _steps(then):
        if part is None:
            time.sleep(0.005)
        else:
            yield part


async def parts_async(then: str) -> AsyncIterator[bytes]:
    """Do as `parts`."""
    for part in _steps(then):
        if part is None:
            await asyncio.sleep(0.005)
        else:
            yield part


class OutsideOfASGI:
    """Looks outside before and after each connection; the path may begin with another's name."""

    def __init__(self, app: Any, in_request: Any = bool, **others: Any) -> None:
        self.app = app
        self.in_request = in_request
        self.others = others

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            LOOPS.append(asyncio.get_running_loop())
        app = self.app
        prefix = scope.get("path", "").split("/")[1:2]
        if prefix and prefix[0] in self.others:
            app = self.others[prefix[0]]
            path = scope["path"].removeprefix(f"/{prefix[0]}")
            scope = {**scope, "path": path, "raw_path": path.encode()}
        look_outside(in_request=self.in_request())
        try:
            await app(scope, receive, send)
        finally:
            look_outside(in_request=self.in_request())


def mounting(app: Any) -> Any:
    """Return an application on ASGI with the same one mounted in it."""

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        is_inner = scope["type"] == "http" and scope["path"].startswith("/mounted/")
        if is_inner:
            scope = {**scope, "path": scope["path"].removeprefix("/mounted")}
        await (EventsMiddleware(app) if is_inner else app)(scope, receive, send)

    return mounted


class OutsideOfWSGI:
    """Looks outside before each request and before its body, in the thread that answers."""

    def __init__(self, app: Any, in_request: Any = bool) -> None:
        self.app = app
        self.in_request = in_request

    def __call__(self, environ: Any, start_response: Any) -> Any:
        look_outside(in_request=self.in_request())
        try:
            body = self.app(environ, start_response)
        finally:
            look_outside()  # until its stream has ended, Flask's own context may still be there
        if type(body) is environ.get("wsgi.file_wrapper"):
            note("file for the server")
        return body
