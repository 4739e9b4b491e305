"""The application: accounts from sign-up to lock-out, as a browser goes through them."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from accounts import STREAM_SECONDS, Accounts, Pages, Settings
from fastapi_app import create_app

from madcrow_events import EventDispatcher, get_event_dispatcher
from madcrow_events.testing import record_events

PASSWORD = "correct horse battery"
REGISTRATION = {"email": "ada@example.com", "name": "Ada", "password": PASSWORD}
SIGN_IN = {"email": "ada@example.com", "password": PASSWORD}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("MADCROW_EVENTS_DISABLE_PLUGINS", "1")  # whatever is installed here
    return Settings(tmp_path, "k" * 32)


@pytest.fixture
async def browser(isolated: None, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client that keeps cookies, and says where its forms come from."""
    app = create_app(settings)
    transport = httpx.ASGITransport(app, client=("192.0.2.1", 50000))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=transport,
            base_url="http://accounts.test",
            headers={"Origin": "http://accounts.test"},
        ) as browser,
    ):
        yield browser


async def sign_up_and_in(browser: httpx.AsyncClient) -> None:
    assert (await browser.post("/sign-up", data=REGISTRATION)).status_code == 303
    assert (await browser.post("/sign-in", data=SIGN_IN)).status_code == 303


async def test_a_person_signs_up_signs_in_and_signs_out(browser: httpx.AsyncClient) -> None:
    with record_events() as events:
        await sign_up_and_in(browser)
        assert "Ada" in (await browser.get("/")).text
        await browser.post("/sign-out")
        assert "Ada" not in (await browser.get("/")).text
    events.assert_emitted("user_registered", times=1, name="Ada", ip_address="192.0.2.1")
    events.assert_emitted("user_logged_in", times=1)
    events.assert_emitted("page_viewed", times=2, path="/")
    events.assert_emitted("user_logged_out", times=1)
    events.assert_not_emitted("handler_failed")


async def test_a_form_that_is_sent_empty_is_answered_with_the_form(
    browser: httpx.AsyncClient,
) -> None:
    answer = await browser.post("/sign-up", data={"email": "", "name": "", "password": ""})
    assert answer.status_code == 422
    assert answer.headers["content-type"].startswith("text/html")
    assert "Enter an e-mail address" in answer.text


async def test_all_sessions_end_when_the_password_is_changed(browser: httpx.AsyncClient) -> None:
    await sign_up_and_in(browser)
    before = dict(browser.cookies)
    with record_events() as events:
        new = "battery staple horse"
        answer = await browser.post("/password", data={"current": PASSWORD, "new": new})
    assert answer.status_code == 303
    events.assert_emitted("password_changed", times=1)
    answer = await browser.get("/password", headers={"Cookie": f"session={before['session']}"})
    assert answer.headers["location"] == "/sign-in"


async def test_guessing_locks_the_account_out(browser: httpx.AsyncClient) -> None:
    await browser.post("/sign-up", data=REGISTRATION)
    with record_events() as events:
        wrong = {**SIGN_IN, "password": "wrong"}
        statuses = [(await browser.post("/sign-in", data=wrong)).status_code for _ in range(5)]
        await get_event_dispatcher().drain_async(5)
        # The right password does not help, either.
        statuses += [
            (await browser.post("/sign-in", data=form)).status_code for form in (wrong, SIGN_IN)
        ]
    assert statuses == [401] * 5 + [429] * 2
    events.assert_emitted("account_locked", times=1, kind="brute_force")
    events.assert_emitted("login_failed", times=7, ip_address="192.0.2.1")


@pytest.mark.parametrize("path", ["/sign-up", "/sign-in", "/sign-out", "/password"])
@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.test"}, {"Sec-Fetch-Site": "cross-site"}]
)
async def test_a_form_of_another_site_is_refused(
    browser: httpx.AsyncClient, path: str, headers: dict[str, str]
) -> None:
    with record_events() as events:
        answer = await browser.post(path, data=REGISTRATION, headers=headers)
    assert answer.status_code == 403
    assert "It did not come from a page of this site" in answer.text
    assert events.emissions == ()


async def test_events_are_shown_to_administrators_only(
    browser: httpx.AsyncClient, settings: Settings
) -> None:
    assert (await browser.get("/events")).headers["location"] == "/sign-in"
    assert (await browser.get("/events/stream")).status_code == 403
    await sign_up_and_in(browser)
    assert (await browser.get("/events")).status_code == 403
    assert (await browser.get("/events/stream")).status_code == 403
    Accounts(settings.folder, EventDispatcher()).grant_admin(SIGN_IN["email"])
    assert (await browser.get("/events")).status_code == 200
    answer = await browser.get("/events/stream")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.elapsed.total_seconds() < STREAM_SECONDS + 1  # the page asks again
    sent = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert "user_logged_in" in {entry["event"] for entry in sent}
    assert PASSWORD not in answer.text

    last = max(line for line in answer.text.splitlines() if line.startswith("id: "))[4:]
    again = await browser.get("/events/stream", headers={"Last-Event-ID": last})
    assert "user_registered" not in again.text


@pytest.mark.parametrize("path", ["/", "/nowhere"])
async def test_a_failure_has_a_page_also_without_the_database(
    isolated: None, settings: Settings, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Whichever page was asked for, and whoever asked; the page says nothing of the cause."""

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("the reason is nobody's business")

    monkeypatch.setattr(Pages, "visit", fail)
    transport = httpx.ASGITransport(create_app(settings), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://accounts.test") as browser:
        answer = await browser.get(path)
    assert answer.status_code == 500
    assert "<h1>Something went wrong</h1>" in answer.text
    assert "business" not in answer.text


async def test_nothing_is_left_behind_when_it_ends(
    isolated: None, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        get_event_dispatcher().emit("user_logged_in", user_id=1, email="ada@example.com")
    get_event_dispatcher().emit("user_logged_in", user_id=2, email="ada@example.com")
    assert caplog.records == []


async def test_it_describes_itself_and_loads_nothing_from_elsewhere(
    browser: httpx.AsyncClient,
) -> None:
    description = (await browser.get("/openapi.json")).json()
    assert set(description["paths"]["/sign-in"]["post"]["responses"]) >= {"303", "401", "403"}
    assert (await browser.get("/docs")).status_code == 404


def test_the_key_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCOUNTS_SECRET_KEY", raising=False)
    with pytest.raises(RuntimeError, match="ACCOUNTS_SECRET_KEY"):
        create_app()
