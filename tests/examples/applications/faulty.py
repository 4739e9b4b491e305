"""The example applications with what goes wrong in real ones, served by the tests.

Every `page_viewed` is noted in the file `NOTES`, by a slow handler in the background; another
handler is broken. Two routes are added: one that takes its time, and one that emits and then fails.
"""

import os
import time
from typing import Any

from accounts import PageViewed

from madcrow_events import EventDispatcher

SLOW = 0.02  # seconds


def _handle(dispatcher: EventDispatcher) -> None:
    notes = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(context: PageViewed) -> None:
        time.sleep(SLOW)
        os.write(notes, f"{context.path} {context.request_id} {context.user_agent}\n".encode())

    def broken(context: PageViewed) -> None:
        raise ConnectionError("the reason of this failure is nobody's business")

    dispatcher.signals.subscribe(PageViewed, note, background=True)
    dispatcher.signals.subscribe(PageViewed, broken, priority=1)


def _view(dispatcher: EventDispatcher, path: str) -> None:
    time.sleep(SLOW)
    dispatcher.emit(PageViewed(path=path))


def fastapi() -> Any:
    """Return the application of FastAPI."""
    import fastapi_app
    from fastapi_app.events import Events

    app = fastapi_app.create_app()
    _handle(app.state.event_dispatcher)

    @app.get("/view/{number}")
    def view(number: int, events: Events) -> None:
        _view(events, f"/view/{number}")

    @app.get("/fail/{number}")
    def fail(number: int, events: Events) -> None:
        _view(events, f"/fail/{number}")
        raise LookupError(number)

    return app


def flask() -> Any:
    """Return the application of Flask."""
    import flask_app

    app = flask_app.create_app()
    dispatcher = app.extensions["madcrow_events"]
    _handle(dispatcher)

    @app.get("/view/<int:number>")
    def view(number: int) -> str:
        _view(dispatcher, f"/view/{number}")
        return ""

    @app.get("/fail/<int:number>")
    def fail(number: int) -> str:
        _view(dispatcher, f"/fail/{number}")
        raise LookupError(number)

    return app
