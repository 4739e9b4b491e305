"""Events in a Flask application: copy this file, and call `Events(app)`."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from inspect import iscoroutinefunction
from threading import current_thread

from flask import Flask, current_app, g, has_app_context

from madcrow_events import Emission, get_event_dispatcher
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
            def emitting(self) -> AbstractContextManager[object]:
                context = app.app_context()
                context.g.events_thread = None
                return context

        app.wsgi_app = Middleware(app.wsgi_app, dispatcher)  # type: ignore[method-assign]


class _Contexts:
    """Gives each handler an application context, if its emitter has one that it cannot share."""

    def emission(self, emission: Emission) -> AbstractContextManager[object]:
        # A failure may be announced in a thread that has a copy of the emitter's context variables.
        if has_app_context() and emission.event != "handler_failed" and g.get("events_thread", 1):
            g.events_thread = current_thread()
        return nullcontext()

    @contextmanager
    def handling(self, emission: Emission, handler: object) -> Iterator[None]:
        is_alone = iscoroutinefunction(handler) or emission.event == "handler_failed"
        if has_app_context() and (is_alone or g.get("events_thread") is not current_thread()):
            with ExitStack() as stack:
                context = stack.enter_context(current_app.app_context())
                stack.callback(setattr, context.g, "events_thread", None)  # for what runs later
                yield
        else:
            yield


_CONTEXTS = _Contexts()
