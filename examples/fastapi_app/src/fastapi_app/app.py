"""The routes: each hands what was asked for to the pages, and their reply to FastAPI."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from accounts import (
    POLL_SECONDS,
    STATIC,
    Accounts,
    EventLog,
    Pages,
    PageViewed,
    Reply,
    Settings,
    Visit,
)
from fastapi import APIRouter, Depends, FastAPI, Form, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException  # which FastAPI's own is, and those of the routing

from fastapi_app.events import Events, init_events
from madcrow_events import load_plugins

__all__ = ["create_app"]


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application.

    Args:
        settings: its folder and key; None reads them from the environment.
    """
    settings = settings or Settings.from_environment()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        dispatcher.remove_observer(log)
        log.close()

    app = FastAPI(
        title="Accounts",
        version="0.1.0",
        lifespan=lifespan,
        dependencies=[Depends(_refuse_forgery)],
        docs_url=None,  # it would load its parts from another host
        redoc_url=None,
    )
    init_events(app)
    load_plugins(allow=settings.plugins)
    dispatcher = app.state.event_dispatcher
    log = app.state.event_log = EventLog(settings.folder)
    dispatcher.add_observer(log)
    app.state.pages = Pages(Accounts(settings.folder, dispatcher), settings.secret_key)
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_exception_handler(_ForgedError, _answer_forgery)
    app.add_exception_handler(HTTPException, _answer_problem)
    app.add_exception_handler(RequestValidationError, _answer_misfit)
    app.add_exception_handler(Exception, _answer_failure)
    return app


# What the routes are given


async def _pages(request: Request) -> Pages:
    pages: Pages = request.app.state.pages
    return pages


ThePages = Annotated[Pages, Depends(_pages)]


# Not `async`, as the routes are not: they wait for the database, and so are called in a thread.
def _visit(request: Request, pages: ThePages) -> Visit:
    address = request.client.host if request.client else None
    return pages.visit(request.cookies, address, is_https=request.url.scheme == "https")


Visitor = Annotated[Visit, Depends(_visit)]
# A form's empty field is as good as none for FastAPI. The page says what is to be entered.
Text = Annotated[str, Form()]


class _ForgedError(Exception):
    """A form came from another site."""


async def _refuse_forgery(request: Request, pages: ThePages) -> None:
    if pages.is_forged(request.method, request.headers.get("host", ""), request.headers):
        raise _ForgedError


async def _answer_forgery(request: Request, _error: Exception) -> Response:
    return _response((await _pages(request)).forged())


async def _answer_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # for the type checker
    pages = await _pages(request)
    visit = await run_in_threadpool(_visit, request, pages)
    reply = pages.problem(error.status_code, visit)
    return Response(reply.body, reply.status, {**(error.headers or {}), **reply.headers})


async def _answer_misfit(request: Request, _error: Exception) -> Response:
    return await _answer_problem(request, HTTPException(422))


async def _answer_failure(request: Request, _error: Exception) -> Response:
    # Outside of the request, whose events are dropped; the server still logs the exception.
    return _response((await _pages(request)).problem(500))


def _response(reply: Reply) -> Response:
    return Response(reply.body, reply.status, reply.headers)


def _html(**statuses: str) -> dict[int | str, dict[str, Any]]:
    """Describe answers that are pages, for OpenAPI: `_html(_403="why")`."""
    page: dict[str, Any] = {"text/html": {"schema": {"type": "string"}}}
    return {
        int(status.removeprefix("_")): {"description": why, "content": page}
        for status, why in statuses.items()
    }


_FORM: dict[str, Any] = {"response_class": HTMLResponse, "status_code": 303}
_FORGED = "The form came from another site."

router = APIRouter()


@router.get("/", response_class=HTMLResponse)
def home(pages: ThePages, visit: Visitor, events: Events) -> Response:
    """Show the first page."""
    events.emit(PageViewed(path="/"))
    return _response(pages.home(visit))


@router.get("/sign-up", response_class=HTMLResponse)
def sign_up_form(pages: ThePages, visit: Visitor) -> Response:
    """Show the form for a new account."""
    return _response(pages.sign_up_form(visit))


@router.post(
    "/sign-up",
    **_FORM,
    responses=_html(_403=_FORGED, _409="The e-mail is taken.", _422="A value does not fit."),
)
def sign_up(
    pages: ThePages, visit: Visitor, email: Text = "", name: Text = "", password: Text = ""
) -> Response:
    """Make an account."""
    return _response(pages.sign_up(visit, email, name, password))


@router.get("/sign-in", response_class=HTMLResponse)
def sign_in_form(pages: ThePages, visit: Visitor, notice: str = "") -> Response:
    """Show the form for a session."""
    return _response(pages.sign_in_form(visit, notice))


@router.post(
    "/sign-in",
    **_FORM,
    responses=_html(
        _401="E-mail or password is wrong.",
        _403=_FORGED,
        _422="A value does not fit.",
        _429="It was tried too often.",
    ),
)
def sign_in(
    pages: ThePages,
    visit: Visitor,
    email: Text = "",
    password: Text = "",
    remember_me: Annotated[bool, Form()] = False,  # a checkbox
) -> Response:
    """Begin a session."""
    return _response(pages.sign_in(visit, email, password, remember_me=remember_me))


@router.post("/sign-out", **_FORM, responses=_html(_403=_FORGED))
def sign_out(pages: ThePages, visit: Visitor) -> Response:
    """End the session."""
    return _response(pages.sign_out(visit))


@router.get("/password", response_class=HTMLResponse, responses=_html(_303="Nobody has signed in."))
def password_form(pages: ThePages, visit: Visitor) -> Response:
    """Show the form for another password."""
    return _response(pages.password_form(visit))


@router.post(
    "/password",
    **_FORM,
    responses=_html(
        _401="The password is wrong.",
        _403=_FORGED,
        _422="A value does not fit.",
        _429="It was tried too often.",
    ),
)
def change_password(
    pages: ThePages, visit: Visitor, current: Text = "", new: Text = ""
) -> Response:
    """Set another password, and end all sessions of the account."""
    return _response(pages.change_password(visit, current, new))


@router.get(
    "/events",
    response_class=HTMLResponse,
    responses=_html(_303="Nobody has signed in.", _403="For administrators."),
)
def events_page(pages: ThePages, visit: Visitor) -> Response:
    """Show the events as they happen."""
    return _response(pages.events(visit))


@router.post("/events/break", **_FORM, responses=_html(_403="For administrators."))
def break_handler(pages: ThePages, visit: Visitor) -> Response:
    """Let a handler fail, to show what becomes of it."""
    return _response(pages.break_handler(visit))


@router.get(
    "/events/stream",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        **_html(_403="For administrators."),
    },
)
def stream_events(
    request: Request,
    pages: ThePages,
    visit: Visitor,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """Send the events to that page."""
    if not pages.may_watch(visit):
        raise HTTPException(403)
    parts = _follow(request.app.state.event_log, last_event_id)
    headers = {"Cache-Control": "no-store"}
    return StreamingResponse(parts, media_type="text/event-stream", headers=headers)


async def _follow(log: EventLog, last_event_id: str | None) -> AsyncIterator[str]:
    follower = await run_in_threadpool(log.follow, last_event_id)
    while not follower.is_over:
        if text := await run_in_threadpool(follower.read):
            yield text
        await asyncio.sleep(POLL_SECONDS)
