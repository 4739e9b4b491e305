"""Events in a Flask application: copy this file, and call `Events(app)`."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import local

from flask import Flask, current_app, has_app_context

from madcrow_events import Emission, get_event_dispatcher
from madcrow_events.contrib.wsgi import EventsMiddleware
from madcrow_events.event_handlers import register_all_handlers

__all__ = ["Events"]


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
            def emitting(self) -> AbstractContextManager[object]:
                return app.app_context()

        app.wsgi_app = Middleware(app.wsgi_app, dispatcher)  # type: ignore[method-assign]


class _Contexts(local):
    """Gives each handler an application context; those of Flask's signals share the request's."""

    signals = 0  # of Flask, whose handlers this thread is calling

    @contextmanager
    def emission(self, emission: Emission) -> Iterator[None]:
        is_flasks = isinstance(emission.sender, Flask)
        self.signals += is_flasks
        try:
            yield
        finally:
            self.signals -= is_flasks

    def handling(self, emission: Emission, _handler: object) -> AbstractContextManager[object]:
        if not has_app_context() or (self.signals and isinstance(emission.sender, Flask)):
            return nullcontext()
        return current_app.app_context()


_CONTEXTS = _Contexts()
