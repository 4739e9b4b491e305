"""Flask's signals are events, without secrets, also those of requests that fail."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import flask
import pytest
from flask import Flask, abort, flash, render_template_string
from flask_app.events import (
    Events,
    ExceptionEventContext,
    FlashEventContext,
    RequestEventContext,
    ResponseEventContext,
    TemplateEventContext,
)

from madcrow_events import Emission, TimingObserver, emit_event, madcrow_signals, on_event

MakeApp = Callable[..., Flask]
SECRET = "hunter2"


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    """Return an application whose pages have secrets where pages have them."""
    app = make_app()
    app.secret_key = "key"

    @app.post("/broken")
    def broken() -> str:
        raise LookupError(SECRET)

    @app.get("/page/<int:number>")
    def page(number: int) -> str:
        flash(SECRET, "warning")
        return render_template_string("{{ it }}", it=SECRET)

    return app


@pytest.fixture
def told(app: Flask) -> list[Emission]:
    """Return what a handler of all of Flask's events is called with."""
    emissions: list[Emission] = []

    @on_event("flask.*")
    def hear(emission: Emission) -> None:
        emissions.append(emission)

    return emissions


def fields(emission: Emission) -> Any:
    return emission.context.model_dump(exclude={"timestamp", "user_agent", "ip_address"})


def test_the_events_of_a_request_say_what_it_was(app: Flask, told: list[Emission]) -> None:
    app.test_client().get(f"/page/7?key={SECRET}", headers={"X-Request-ID": "r-17"})
    request = {
        "method": "GET",
        "path": "/page/7",
        "endpoint": "page",
        "request_id": "r-17",
    }
    assert [(it.event, fields(it)) for it in told] == [
        ("flask.request_started", request),
        ("flask.message_flashed", {**request, "category": "warning"}),
        ("flask.template_rendered", {**request, "template": None}),
        ("flask.request_finished", {**request, "status": 200}),
        ("flask.request_tearing_down", {**request, "exception_type": None}),
    ]


def test_the_exception_of_a_request_that_fails_is_told(
    app: Flask, told: list[Emission], heard: Any
) -> None:
    data = {"password": SECRET}
    app.test_client().post("/broken", data=data, headers={"X-Request-ID": "r-17"})
    (failure,) = (it for it in told if it.event == "flask.got_request_exception")
    assert failure.context.exception_type == "LookupError"
    assert failure.context.request_id == "r-17"
    assert [it.event for it in told[-2:]] == [
        "flask.request_finished",
        "flask.request_tearing_down",
    ]
    assert told[-2].context.status == 500
    assert heard == []


def test_no_event_has_a_secret(app: Flask, told: list[Emission]) -> None:
    app.test_client().get(f"/page/7?key={SECRET}", headers={"Authorization": SECRET})
    app.test_client().post("/broken", data={"password": SECRET})
    assert len(told) == 9
    assert SECRET not in repr([it.context for it in told])


def test_they_go_out_at_once_and_those_that_they_cause_do(app: Flask, heard: Any) -> None:
    on_event("flask.got_request_exception")(lambda: emit_event("order_placed", number="alert"))
    app.test_client().post("/broken")
    assert heard.numbers() == ["alert"]  # and not what the request emitted


def test_handlers_are_called_where_flask_sends(app: Flask) -> None:
    seen = []
    on_event("flask.template_rendered")(lambda: seen.append(flask.request.view_args))
    app.test_client().get("/page/7")
    assert seen == [{"number": 7}]


def test_the_sender_is_the_application(app: Flask, make_app: MakeApp) -> None:
    paths, other = [], make_app()

    @on_event("flask.request_started", sender=app)
    def hear(context: RequestEventContext) -> None:
        paths.append(context.path)

    app.test_client().get("/")
    other.test_client().get("/other")
    assert paths == ["/"]


def test_their_contexts_are_typed(app: Flask) -> None:
    models = {
        name: signal.context_model
        for name, signal in madcrow_signals.items()
        if name.startswith("flask.")
    }
    assert models == {
        "flask.request_started": RequestEventContext,
        "flask.request_finished": ResponseEventContext,
        "flask.request_tearing_down": ExceptionEventContext,
        "flask.got_request_exception": ExceptionEventContext,
        "flask.template_rendered": TemplateEventContext,
        "flask.message_flashed": FlashEventContext,
    }


def test_observers_see_them(app: Flask, told: list[Emission]) -> None:
    timing = TimingObserver()
    app.extensions["madcrow_events"].add_observer(timing)
    app.test_client().post("/broken")
    seen = {it.event: it.emissions for it in timing.snapshot().events}
    assert seen["flask.got_request_exception"] == 1


def test_a_template_may_be_rendered_without_a_request(app: Flask, told: list[Emission]) -> None:
    app.test_client().get("/")
    told.clear()
    with app.app_context():
        render_template_string("text")
    (rendered,) = told
    assert fields(rendered) == {
        "method": None,
        "path": None,
        "endpoint": None,
        "request_id": None,
        "template": None,
    }


def test_nothing_is_connected_to_flask_as_long_as_nobody_handles_it(app: Flask) -> None:
    app.test_client().get("/")
    assert not flask.request_started.has_receivers_for(app)
    on_event("flask.request_started")(lambda: None)
    assert flask.request_started.has_receivers_for(app)
    assert not flask.request_finished.has_receivers_for(app)


def test_handlers_may_come_with_a_pattern_before_the_application() -> None:
    seen = []

    @on_event("flask.request_*")
    def hear(emission: Emission) -> None:
        seen.append(emission.event)

    app = Flask("shop")
    Events(app)
    app.test_client().get("/")
    assert seen == [
        "flask.request_started",
        "flask.request_finished",
        "flask.request_tearing_down",
    ]


def test_a_request_that_is_refused_has_no_endpoint(app: Flask, told: list[Emission]) -> None:
    app.before_request(lambda: abort(403))
    assert app.test_client().get("/nowhere").status_code == 403
    assert told[0].context.endpoint is None


def test_an_application_that_is_gone_is_not_kept() -> None:
    app = Flask("shop")
    Events(app)
    app.test_client().get("/")
    gone = weakref.ref(app)
    del app
    gc.collect()
    assert gone() is None
