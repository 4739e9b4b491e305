"""The routes: each hands what was asked for to the pages, and their reply to Flask."""

import time
from collections.abc import Iterator

from accounts import (
    POLL_SECONDS,
    STATIC,
    Accounts,
    EventLog,
    Follower,
    Pages,
    PageViewed,
    Reply,
    Settings,
    Visit,
)
from flask import Blueprint, Flask, Response, abort, current_app, request
from werkzeug.exceptions import HTTPException

from flask_app.events import Events
from flask_app.flask_extras import init_extras
from madcrow_events import load_plugins

__all__ = ["create_app"]

_LARGEST_FORM = 64 * 1024  # bytes

routes = Blueprint("accounts", __name__)


def create_app(settings: Settings | None = None) -> Flask:
    """Return the application.

    Args:
        settings: its folder and key; None reads them from the environment.
    """
    settings = settings or Settings.from_environment()
    app = Flask(__name__, static_folder=STATIC, static_url_path="/static")
    app.config["MAX_CONTENT_LENGTH"] = _LARGEST_FORM
    Events(app)
    init_extras(app)
    load_plugins(allow=settings.plugins)  # last, because plugins may handle Flask's events
    dispatcher = app.extensions["madcrow_events"]
    # It is not closed: at the end of the process it notes what is still handled in the background,
    # and what it has noted is waited for, like all that is pending.
    log = app.extensions["event_log"] = EventLog(settings.folder)
    dispatcher.add_observer(log)
    app.extensions["pages"] = Pages(Accounts(settings.folder, dispatcher), settings.secret_key)
    app.register_blueprint(routes)
    return app


def _pages() -> Pages:
    pages: Pages = current_app.extensions["pages"]
    return pages


def _visit() -> Visit:
    return _pages().visit(request.cookies, request.remote_addr, is_https=request.is_secure)


def _response(reply: Reply) -> Response:
    return Response(reply.body, reply.status, reply.headers)


def _field(name: str) -> str:
    return request.form.get(name, "")


@routes.before_app_request
def refuse_forgery() -> Response | None:
    """Refuse forms that come from another site."""
    if _pages().is_forged(request.method, request.host, request.headers):
        return _response(_pages().forged())
    return None


@routes.app_errorhandler(HTTPException)
def answer_problem(error: HTTPException) -> Response:
    """Show a page for what Flask refuses."""
    reply = _pages().problem(error.code or 500, _visit())
    return Response(reply.body, reply.status, {**dict(error.get_headers()), **reply.headers})


@routes.app_errorhandler(500)
def answer_failure(_error: Exception) -> Response:
    """Show a page for an exception, which Flask has logged."""
    return _response(_pages().problem(500))


@routes.get("/")
def home() -> Response:
    """Show the first page."""
    current_app.extensions["madcrow_events"].emit(PageViewed(path=request.path))
    return _response(_pages().home(_visit()))


@routes.get("/sign-up")
def sign_up_form() -> Response:
    """Show the form for a new account."""
    return _response(_pages().sign_up_form(_visit()))


@routes.post("/sign-up")
def sign_up() -> Response:
    """Make an account."""
    reply = _pages().sign_up(_visit(), _field("email"), _field("name"), _field("password"))
    return _response(reply)


@routes.get("/sign-in")
def sign_in_form() -> Response:
    """Show the form for a session."""
    return _response(_pages().sign_in_form(_visit(), request.args.get("notice", "")))


@routes.post("/sign-in")
def sign_in() -> Response:
    """Begin a session."""
    reply = _pages().sign_in(
        _visit(), _field("email"), _field("password"), remember_me="remember_me" in request.form
    )
    return _response(reply)


@routes.post("/sign-out")
def sign_out() -> Response:
    """End the session."""
    return _response(_pages().sign_out(_visit()))


@routes.get("/password")
def password_form() -> Response:
    """Show the form for another password."""
    return _response(_pages().password_form(_visit()))


@routes.post("/password")
def change_password() -> Response:
    """Set another password, and end all sessions of the account."""
    return _response(_pages().change_password(_visit(), _field("current"), _field("new")))


@routes.get("/events")
def events_page() -> Response:
    """Show the events as they happen, to administrators."""
    return _response(_pages().events(_visit()))


@routes.post("/events/break")
def break_handler() -> Response:
    """Let a handler fail, to show what becomes of it."""
    return _response(_pages().break_handler(_visit()))


@routes.get("/events/stream")
def stream_events() -> Response:
    """Send the events to that page."""
    if not _pages().may_watch(_visit()):
        abort(403)
    log: EventLog = current_app.extensions["event_log"]
    parts = _parts(log.follow(request.headers.get("Last-Event-ID")))
    return Response(parts, mimetype="text/event-stream", headers={"Cache-Control": "no-store"})


def _parts(follower: Follower) -> Iterator[str]:
    while not follower.is_over:
        if part := follower.read():
            yield part
        time.sleep(POLL_SECONDS)
