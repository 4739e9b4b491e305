"""Flask's signals are events, also those of requests that fail; `flask events` shows what is."""

from typing import Any

import flask
import pytest
from flask import Flask, abort, flash, render_template_string
from flask_app.events import Events
from flask_app.flask_extras import RequestEventContext, init_extras

from madcrow_events import Emission, TimingObserver, emit_event, on_event
from madcrow_events.plugins import Plugin, PluginReport

SECRET = "hunter2"


@pytest.fixture
def shop(app: Flask) -> Flask:
    """Return an application whose pages have secrets where pages have them."""
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
def told(shop: Flask) -> list[Emission]:
    """Return what a handler of all of Flask's events is called with."""
    emissions: list[Emission] = []

    @on_event("flask.*")
    def hear(emission: Emission) -> None:
        emissions.append(emission)

    return emissions


def fields(emission: Emission) -> Any:
    return emission.context.model_dump(exclude={"timestamp", "user_agent", "ip_address"})


# Flask's signals


def test_the_events_of_a_request_say_what_it_was(shop: Flask, told: list[Emission]) -> None:
    shop.test_client().get(f"/page/7?key={SECRET}", headers={"X-Request-ID": "r-17"})
    request = {"method": "GET", "path": "/page/7", "endpoint": "page", "request_id": "r-17"}
    assert [(it.event, fields(it)) for it in told] == [
        ("flask.request_started", request),
        ("flask.message_flashed", {**request, "category": "warning"}),
        ("flask.template_rendered", {**request, "template": None}),
        ("flask.request_finished", {**request, "status": 200}),
        ("flask.request_tearing_down", {**request, "exception_type": None}),
    ]


def test_those_of_a_request_that_fails_go_out_and_those_that_they_cause(
    shop: Flask, told: list[Emission], heard: Any
) -> None:
    """At once, seen by observers, and past the block of the request, whose own are dropped."""
    timing = TimingObserver()
    shop.extensions["madcrow_events"].add_observer(timing)
    on_event("flask.got_request_exception")(lambda: emit_event("order_placed", number="alert"))
    shop.test_client().post("/broken", data={"password": SECRET})
    assert [it.event.removeprefix("flask.") for it in told] == [
        "request_started",
        "got_request_exception",
        "request_finished",
        "request_tearing_down",
    ]
    assert told[1].context.exception_type == "LookupError"
    assert told[2].context.status == 500
    assert heard.numbers() == ["alert"]
    seen = {it.event: it.emissions for it in timing.snapshot().events}
    assert seen["flask.got_request_exception"] == 1


def test_no_event_has_a_secret(shop: Flask, told: list[Emission]) -> None:
    shop.test_client().get(f"/page/7?key={SECRET}", headers={"Authorization": SECRET})
    shop.test_client().post("/broken", data={"password": SECRET})
    assert len(told) == 9
    assert SECRET not in repr([it.context for it in told])


def test_handlers_are_called_where_flask_sends(shop: Flask) -> None:
    seen = []
    on_event("flask.template_rendered")(lambda: seen.append(flask.request.view_args))
    shop.test_client().get("/page/7")
    assert seen == [{"number": 7}]


def test_the_sender_is_the_application(shop: Flask) -> None:
    paths, office = [], Flask("office")
    Events(office)
    init_extras(office)

    @on_event("flask.request_started", sender=shop)
    def hear(context: RequestEventContext) -> None:
        paths.append(context.path)

    shop.test_client().get("/")
    office.test_client().get("/office")
    assert paths == ["/"]


def test_without_a_request_there_is_nothing_to_say_of_it(shop: Flask, told: list[Emission]) -> None:
    """Nor is there an endpoint if the request is refused before there is one."""
    shop.before_request(lambda: abort(403))
    assert shop.test_client().get("/nowhere").status_code == 403
    assert told[0].context.endpoint is None
    told.clear()
    with shop.app_context():
        render_template_string("text")
    assert set(fields(told[0]).values()) == {None}


def test_nothing_is_connected_to_flask_as_long_as_nobody_handles_it(shop: Flask) -> None:
    shop.test_client().get("/")
    assert not flask.request_started.has_receivers_for(shop)
    on_event("flask.request_started")(lambda: None)
    assert flask.request_started.has_receivers_for(shop)
    assert not flask.request_finished.has_receivers_for(shop)


def test_handlers_may_come_with_a_pattern_before_the_application() -> None:
    seen = []
    on_event("flask.request_*")(lambda: seen.append("called"))
    app = Flask("shop")
    Events(app)
    init_extras(app)
    app.test_client().get("/")
    assert len(seen) == 3


# The command line


def run(app: Flask, *arguments: str) -> Any:
    return app.test_cli_runner().invoke(args=["events", *arguments])


def bill() -> None: ...


class Mailer:
    def __call__(self) -> None: ...


def test_list_shows_each_event_with_its_context_and_its_handlers(app: Flask) -> None:
    on_event("order_placed")(bill)
    on_event("order_*")(Mailer())
    listed = run(app, "list")
    assert listed.exit_code == 0
    lines = [line.split() for line in listed.output.splitlines()]
    assert lines[0] == ["EVENT", "CONTEXT", "HANDLER"]
    assert ["order_placed", "-", f"{__name__}.bill"] in lines
    assert ["order_placed", "-", f"{__name__}.Mailer"] in lines
    assert ["flask.message_flashed", "FlashEventContext", "-"] in lines
    ready_made = "madcrow_events.event_handlers.auth_handlers.handle_user_login"
    assert ["user_logged_in", "LoginEventContext", ready_made] in lines


def test_list_takes_a_pattern(app: Flask) -> None:
    on_event("order_placed")(bill)
    assert run(app, "list", "order_*").output == (
        "EVENT         CONTEXT  HANDLER\n"
        f"order_placed  -        {__name__}.bill\n"
    )  # fmt: skip


@pytest.mark.parametrize("status", ["loaded", "refused", "failed"])
def test_plugins_tells_of_each_plugin_and_fails_if_one_would(
    app: Flask, monkeypatch: pytest.MonkeyPatch, status: Any
) -> None:
    plugin = Plugin("alerts", "acme_alerts:group", "acme-alerts", "1.2", ())
    reason = "" if status == "loaded" else "it is too old"
    report = PluginReport(plugin, status, reason)
    monkeypatch.setattr("flask_app.flask_extras.check_plugins", lambda: [report])
    told = run(app, "plugins")
    assert told.exit_code == (0 if status == "loaded" else 1)
    assert [line.split(maxsplit=3) for line in told.output.splitlines()] == [
        ["PLUGIN", "VERSION", "STATUS", "REASON"],
        [plugin.name, "1.2", status, *filter(None, [reason])],
    ]


def test_plugins_asks_for_those_that_are_installed(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MADCROW_EVENTS_DISABLE_PLUGINS", "1")
    assert run(app, "plugins").output.startswith("PLUGIN")
