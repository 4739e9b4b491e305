"""Events in a FastAPI application: copy this file, and call `init_events(app)`."""

from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.requests import HTTPConnection

from madcrow_events import EventDispatcher, get_event_dispatcher
from madcrow_events.contrib.asgi import DISPATCHER, EventsMiddleware
from madcrow_events.event_handlers import register_all_handlers

__all__ = ["Events", "init_events"]


def init_events(app: FastAPI) -> None:
    """Connect events with the requests and the lifespan of an application.

    Call it before the application starts. What your own middleware emits is no part of a request,
    because that of the events stands next to the endpoints.

    Args:
        app: the application; the dispatcher becomes its `state.event_dispatcher`.

    Raises:
        RuntimeError: the application has its events already, or has been started.
    """
    if hasattr(app.state, "event_dispatcher"):
        raise RuntimeError("init_events was called for this application before: call it once")
    dispatcher = get_event_dispatcher()
    register_all_handlers(dispatcher.signals)
    debug = app.debug or None  # or as asyncio says
    app.add_middleware(EventsMiddleware, dispatcher, version=app.version, debug=debug)
    # Next to the endpoints, because other middleware may hide that a stream has broken.
    app.user_middleware.append(app.user_middleware.pop(0))
    app.state.event_dispatcher = dispatcher


async def _dispatcher_of(connection: HTTPConnection) -> EventDispatcher:
    # Not of the application's state, because it may be mounted in another one.
    dispatcher: EventDispatcher | None = connection.scope.get(DISPATCHER)
    if dispatcher is None:
        raise RuntimeError("the application has no events: call init_events(app)")
    return dispatcher


Events = Annotated[EventDispatcher, Depends(_dispatcher_of)]
"""The parameter of an endpoint that emits: `async def sign_up(events: Events)`."""
