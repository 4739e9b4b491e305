"""Events in a Flask application: copy this file, and call `Events(app)`."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from flask import Flask, current_app, g, has_app_context

from madcrow_events import get_event_dispatcher
from madcrow_events.contrib.wsgi import EventsMiddleware
from madcrow_events.event_handlers import register_all_handlers


class Events:
    """`Events(app)`, or `events = Events()` and `events.init_app(app)` in a factory."""

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Connect events with the requests of an application."""
        if "madcrow_events" in app.extensions:
            raise RuntimeError(f"{app.name} has its events already: call init_app once")
        dispatcher = app.extensions["madcrow_events"] = get_event_dispatcher()
        register_all_handlers(dispatcher.signals)
        dispatcher.add_observer(_CONTEXTS)

        class Middleware(EventsMiddleware):
            @contextmanager
            def emitting(self) -> Iterator[None]:
                with app.app_context():
                    g.events_go_out = True
                    yield

        app.wsgi_app = Middleware(app.wsgi_app, dispatcher)  # type: ignore[method-assign]


class _Contexts(threading.local):
    """Gives each handler an application context, but for those whose emitter has one."""

    depth = 0  # of the emissions whose handlers this thread is calling

    def emission(self, _emission: object) -> "_Contexts":
        return self

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1

    def handling(self, _emission: object, _handler: object) -> AbstractContextManager[object]:
        # In a thread of the background, the emitter's context is a copy, and not for this handler.
        if not has_app_context() or (self.depth and "events_go_out" not in g):
            return nullcontext()
        return current_app.app_context()


_CONTEXTS = _Contexts()
