"""The adapter: set-up, and requests of Flask in all their forms."""

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import flask
import pytest
from flask import Flask, Response, abort, request, stream_with_context
from flask_app.events import Events
from flask_app.flask_extras import init_extras
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client, create_environ

from madcrow_events import emit_event, get_event_dispatcher, madcrow_signals
from madcrow_events.event_handlers.security_handlers import security_group

R_17 = {"X-Request-ID": "r-17"}

# Set-up


def test_the_extension_is_the_default_dispatcher_with_the_ready_made_handlers(app: Flask) -> None:
    assert app.extensions["madcrow_events"] is get_event_dispatcher()
    assert security_group in {it.origin for it in madcrow_signals.subscriptions}


def test_a_factory_can_give_the_application_later(heard: Any) -> None:
    events, app = Events(), Flask("shop")
    events.init_app(app)
    app.get("/")(lambda: str(emit_event("order_placed", number=1).state))
    assert app.test_client().get("/").text == "deferred"
    assert heard.numbers() == [1]


def test_a_second_call_for_one_application_is_refused(app: Flask) -> None:
    with pytest.raises(RuntimeError, match="shop has its events already: call init_app once"):
        Events().init_app(app)


def test_an_application_that_is_gone_is_not_kept() -> None:
    app = Flask("shop")
    Events(app)
    init_extras(app)
    app.test_client().get("/")
    gone = weakref.ref(app)
    del app
    gc.collect()
    assert gone() is None


def test_werkzeug_says_which_proxies_are_believed(app: Flask, heard: Any) -> None:
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    app.test_client().get("/", headers={"X-Forwarded-For": "203.0.113.66, 192.0.2.7"})
    assert heard[0].context["ip_address"] == "192.0.2.7"


def test_applications_side_by_side_have_requests_of_their_own(app: Flask, heard: Any) -> None:
    office = Flask("office")
    Events(office)
    office.get("/")(lambda: str(emit_event("order_placed", number="office").state))
    both = Client(DispatcherMiddleware(app, {"/office": office}))
    assert both.get("/office/", headers=R_17).text == "deferred"
    both.get("/")
    assert heard.numbers() == ["office", 1]
    assert [it.context["request_id"] == "r-17" for it in heard] == [True, False]


# Requests


@pytest.mark.parametrize(
    ("status", "numbers"), [(200, [1, 2]), (204, [1, 2]), (404, [1, 2]), (500, []), (503, [])]
)
def test_the_status_of_the_response_decides(
    app: Flask, heard: Any, status: int, numbers: list[int]
) -> None:
    """However it is made: returned, aborted, or by a handler of an exception."""

    @app.get("/<how>")
    def respond(how: str) -> tuple[str, int]:
        emit_event("order_placed", number=2)
        if how == "handled":
            raise LookupError
        if how == "aborted" and status >= 400:
            abort(status)
        return "", status

    app.errorhandler(LookupError)(lambda error: ("", status))
    for path in ("/returned", "/handled", "/aborted"):
        heard.clear()
        assert app.test_client().get(path, headers=R_17).status_code == status
        assert heard.numbers() == numbers
        assert {it.context["request_id"] for it in heard} <= {"r-17"}


@pytest.mark.parametrize("propagates", [False, True])
def test_a_request_that_raises_emits_nothing(app: Flask, heard: Any, propagates: bool) -> None:
    app.config["PROPAGATE_EXCEPTIONS"] = propagates
    app.get("/broken", endpoint="broken")(lambda: 1 / 0)
    if propagates:
        with pytest.raises(ZeroDivisionError):
            app.test_client().get("/broken")
    else:
        assert app.test_client().get("/broken").status_code == 500
    assert heard == []


def test_teardown_functions_are_a_part_of_the_request(app: Flask, heard: Any) -> None:
    app.teardown_request(lambda error: emit_event("order_placed", number="request") and None)

    @app.teardown_appcontext
    def tear_down(error: object) -> None:
        if "is_of_a_request" in flask.g:  # and not of a handler
            emit_event("order_placed", number="context")

    app.before_request(lambda: setattr(flask.g, "is_of_a_request", True))
    app.test_client().get("/")
    assert heard.numbers() == [1, "request", "context"]


def test_a_client_that_preserves_the_context_leaves_no_scope_or_block(
    app: Flask, heard: Any
) -> None:
    with app.test_client() as client:
        client.get("/", headers=R_17)
        assert request.path == "/"
        emit_event("order_placed", number="beside")
        client.get("/")
    assert heard.numbers() == [1, "beside", 1]
    assert "request_id" not in heard[1].context


def test_async_views_are_held_back_as_plain_ones(app: Flask, heard: Any) -> None:
    @app.get("/async")
    async def view() -> str:
        emission = await get_event_dispatcher().emit_async("order_placed", number=2)
        return str(emission.state)

    assert app.test_client().get("/async", headers=R_17).text == "deferred"
    assert heard.numbers() == [1, 2]
    assert heard[1].context["request_id"] == "r-17"


# Streams


def get_stream(app: Flask, *, breaks: bool = False) -> Any:
    """Return the body of a stream with the request's context, in the hands of a server."""

    def parts() -> Iterator[str]:
        for number in (2, 3):
            emit_event("order_placed", number=number)
            yield f"{number} of {request.path}"
        if breaks:
            raise LookupError

    if "stream" not in app.view_functions:
        app.get("/stream", endpoint="stream")(lambda: Response(stream_with_context(parts())))
    return app(create_environ("/stream", headers=R_17), lambda status, headers: print)


def assert_nothing_is_left(app: Flask, heard: Any) -> None:
    """The next request of the thread is one of its own, and what follows is in none."""
    assert not flask.has_app_context()
    assert not flask.has_request_context()
    heard.clear()
    app.test_client().get("/")
    emit_event("order_placed", number="after")
    assert heard.numbers() == [1, "after"]
    assert heard[0].context["request_id"] != "r-17"
    assert "request_id" not in heard[1].context


@pytest.mark.parametrize("reads", [0, 1, 2])
def test_a_stream_with_context_may_be_left_by_the_client(
    app: Flask, heard: Any, reads: int
) -> None:
    body = get_stream(app)
    assert heard.numbers() == [1]  # with the head
    for number, part in zip((2, 3)[:reads], body, strict=False):
        assert part == f"{number} of /stream".encode()
    body.close()
    assert heard.numbers() == [1, 2, 3][: 1 + reads]
    assert {it.context["request_id"] for it in heard} == {"r-17"}
    assert_nothing_is_left(app, heard)


def test_a_stream_with_context_emits_before_the_client_has_its_end(app: Flask, heard: Any) -> None:
    body = get_stream(app)
    assert list(body) == [b"2 of /stream", b"3 of /stream"]
    assert heard.numbers() == [1, 2, 3]
    body.close()
    assert_nothing_is_left(app, heard)


def test_a_stream_with_context_that_breaks_drops_what_it_has_emitted(
    app: Flask, heard: Any
) -> None:
    body = get_stream(app, breaks=True)
    with pytest.raises(LookupError):
        list(body)
    body.close()
    assert heard.numbers() == [1]
    assert_nothing_is_left(app, heard)
