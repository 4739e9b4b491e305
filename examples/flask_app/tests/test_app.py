"""A person signs up, in, out and is locked out; events go to administrators only."""

import logging
import time
from pathlib import Path
from typing import Any

import accounts
import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_app import create_app

from madcrow_events import Emission, get_event_dispatcher, madcrow_signals, on_event
from madcrow_events.testing import record_events

EMAIL, PASSWORD = "ada@example.com", "correct horse battery"
SAME_SITE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(autouse=True)
def _declared() -> None:
    # They were declared by the import, but the registry of a test begins without them.
    madcrow_signals.event(accounts.PageViewed)
    madcrow_signals.event(accounts.AccountLocked)


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    return create_app(accounts.Settings(tmp_path, "k" * 32))


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def post(client: FlaskClient, path: str, **form: str) -> Any:
    return client.post(path, data=form, headers=SAME_SITE)


def sign_up(client: FlaskClient) -> Any:
    return post(client, "/sign-up", email=EMAIL, name="Ada", password=PASSWORD)


def sign_in(client: FlaskClient, password: str = PASSWORD) -> Any:
    return post(client, "/sign-in", email=EMAIL, password=password)


def grant_admin(app: Flask, tmp_path: Path) -> None:
    dispatcher = app.extensions["madcrow_events"]
    accounts.Accounts(tmp_path, dispatcher).grant_admin(EMAIL)


def test_a_person_signs_up_in_and_out(client: FlaskClient) -> None:
    with record_events() as events:
        signed_up = sign_up(client)
        assert (signed_up.status_code, signed_up.location) == (303, "/sign-in?notice=signed-up")
        assert "Your account is there" in client.get(signed_up.location).text
        assert sign_in(client).location == "/"
        assert "Ada" in client.get("/").text
        assert post(client, "/sign-out").status_code == 303
        assert "Ada" not in client.get("/").text
    assert [it.event for it in events.emissions if not it.event.startswith("system")] == [
        "user_registered",
        "user_logged_in",
        "page_viewed",
        "user_logged_out",
        "page_viewed",
    ]


def test_events_know_the_request(client: FlaskClient) -> None:
    seen: list[Any] = []

    @on_event("user_registered")
    def hear(emission: Emission) -> None:
        seen.append(emission.context)

    client.post(
        "/sign-up",
        data={"email": EMAIL, "name": "Ada", "password": PASSWORD},
        headers={**SAME_SITE, "X-Request-ID": "r-17", "User-Agent": "browser"},
        environ_base={"REMOTE_ADDR": "192.0.2.7"},
    )
    (context,) = seen
    assert (context.request_id, context.ip_address, context.user_agent) == (
        "r-17",
        "192.0.2.7",
        "browser",
    )


def test_to_change_the_password_ends_all_sessions(app: Flask, client: FlaskClient) -> None:
    sign_up(client)
    other = app.test_client()
    sign_in(client)
    sign_in(other)
    new = "another long password"
    assert post(client, "/password", current="wrong", new=new).status_code == 401
    assert post(client, "/password", current=PASSWORD, new="short").status_code == 422
    assert post(client, "/password", current=PASSWORD, new=new).status_code == 303
    assert client.get("/password").location == "/sign-in"
    assert other.get("/password").location == "/sign-in"
    assert sign_in(client).status_code == 401
    assert sign_in(client, new).location == "/"


def test_who_guesses_is_locked_out(client: FlaskClient) -> None:
    sign_up(client)
    statuses = [sign_in(client, "a wrong password").status_code for _ in range(5)]
    assert statuses == [401] * 5
    assert get_event_dispatcher().drain(5)
    assert sign_in(client, "a wrong password").status_code == 429
    assert sign_in(client).status_code == 429  # the right one comes too late


def test_forms_of_other_sites_are_refused(client: FlaskClient) -> None:
    sign_up(client)
    sign_in(client)
    elsewhere = [{}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}]
    for path in ("/sign-up", "/sign-in", "/sign-out", "/password", "/nowhere"):
        statuses = [client.post(path, headers=headers).status_code for headers in elsewhere]
        assert statuses == [403] * 3
    assert client.get("/password").status_code == 200  # still signed in


def test_a_form_of_the_same_origin_is_taken(client: FlaskClient) -> None:
    form = {"email": EMAIL, "name": "Ada", "password": PASSWORD}
    headers = {"Origin": "http://localhost"}
    assert client.post("/sign-up", data=form, headers=headers).status_code == 303


def test_events_are_for_administrators(app: Flask, client: FlaskClient, tmp_path: Path) -> None:
    assert client.get("/events").location == "/sign-in"
    assert client.get("/events/stream").status_code == 403
    sign_up(client)
    sign_in(client)
    assert client.get("/events").status_code == 403
    assert client.get("/events/stream").status_code == 403
    grant_admin(app, tmp_path)
    assert client.get("/events").status_code == 200


def test_an_event_is_streamed_within_a_second(
    app: Flask, client: FlaskClient, tmp_path: Path
) -> None:
    sign_up(client)
    sign_in(client)
    grant_admin(app, tmp_path)
    stream = client.get("/events/stream", headers={"Last-Event-ID": "0"})
    assert stream.content_type == "text/event-stream; charset=utf-8"
    assert stream.headers["Cache-Control"] == "no-store"
    app.test_client().get("/")
    viewed = time.monotonic()
    text = ""
    for part in stream.response:
        text += part.decode()
        if '"page_viewed"' in text:
            break
    assert time.monotonic() - viewed < 1
    assert '"path": "/"' in text
    assert PASSWORD not in text
    assert EMAIL not in text
    stream.close()


def test_a_stream_ends_by_itself(app: Flask, client: FlaskClient, tmp_path: Path) -> None:
    sign_up(client)
    sign_in(client)
    grant_admin(app, tmp_path)
    began = time.monotonic()
    assert client.get("/events/stream").text
    assert time.monotonic() - began < accounts.STREAM_SECONDS + 1


def test_a_request_that_fails_emits_nothing(app: Flask) -> None:
    app.after_request(lambda response: 1 / 0)
    with record_events("page_viewed") as events:
        assert app.test_client().get("/").status_code == 500
    events.assert_not_emitted("page_viewed")


@pytest.mark.parametrize("path", ["/", "/nowhere"])
def test_a_failure_has_a_page_also_without_the_database(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Whichever page was asked for, and whoever asked; the page says nothing of the cause."""

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("the reason is nobody's business")

    monkeypatch.setattr(accounts.Pages, "visit", fail)
    answer = client.get(path)
    assert answer.status_code == 500
    assert "<h1>Something went wrong</h1>" in answer.text
    assert "business" not in answer.text


def test_static_files_are_served(client: FlaskClient) -> None:
    with client.get("/static/style.css") as style:
        assert style.status_code == 200


def test_a_form_has_a_limit(client: FlaskClient) -> None:
    assert post(client, "/sign-in", email="a" * 100_000).status_code == 413


def test_no_log_has_a_password(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    on_event("user_logged_in")(lambda: 1 / 0)
    sign_up(client)
    sign_in(client, "a wrong password")
    assert sign_in(client).location == "/"  # a handler that fails costs no request
    shown = caplog.text + repr([vars(record) for record in caplog.records])
    assert PASSWORD not in shown
    assert "a wrong password" not in shown


def test_settings_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ACCOUNTS_SECRET_KEY", raising=False)
    with pytest.raises(RuntimeError, match="set ACCOUNTS_SECRET_KEY"):
        create_app()
    monkeypatch.setenv("ACCOUNTS_SECRET_KEY", "k" * 32)
    monkeypatch.setenv("ACCOUNTS_FOLDER", str(tmp_path / "files"))
    assert create_app().test_client().get("/").status_code == 200
    assert (tmp_path / "files").is_dir()
