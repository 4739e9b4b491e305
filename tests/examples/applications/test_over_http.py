"""Both applications, served as they are to users: by uvicorn, and by gunicorn with two workers.

They are asked over loopback, and looked at through what they leave behind: the notes of a handler,
the event log, and what the servers print.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

NEEDED = ("accounts", "fastapi_app", "flask_app", "gunicorn", "madcrow_events_webhook")
missing = [name for name in NEEDED if find_spec(name) is None]
if missing:
    pytest.skip(f"not installed: {', '.join(missing)}", allow_module_level=True)

import httpx  # noqa: E402  # once it is known that all is there

pytestmark = pytest.mark.once

PASSWORD = "canary of a password"
OTHER_PASSWORD = "canary of another password"
EMAIL = "ada@example.com"
SECRET = "shared with the receiver"
ENDS_WITHIN = 5.0  # seconds


class Receiver:
    """What the webhook posts to.

    Attributes:
        url: where it is.
        received: the bodies whose signatures are right.
    """

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                signed = self.headers["X-Webhook-Timestamp"].encode() + b"." + body
                signature = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
                if self.headers["X-Webhook-Signature"] == f"sha256={signature}":
                    receiver.received.append(json.loads(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Served:
    """A server with the faulty application, and what it leaves behind."""

    def __init__(self, server: Any, folder: Path, receiver: Receiver) -> None:
        self.server = server
        self.folder = folder
        self.receiver = receiver

    def notes(self) -> list[list[str]]:
        """Return path, request id and user agent of each noted `page_viewed`."""
        text = (self.folder / "notes").read_text()
        return [line.split(" ", 2) for line in text.splitlines()]

    def entries(self, event: str) -> list[dict[str, Any]]:
        """Return what the event log has of an event."""
        with closing(sqlite3.connect(self.folder / "events.db")) as database:
            texts = database.execute("SELECT text FROM entries ORDER BY position").fetchall()
        return [entry for (text,) in texts if (entry := json.loads(text))["event"] == event]


def eventually(ask: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Ask again until the answer is true, and return it."""
    ends = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < ends
        time.sleep(0.05)
    return answer


@pytest.fixture(scope="module", params=["fastapi", "flask"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, server_class: Any
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp(request.param)
    receiver = Receiver()
    environment = {
        "NOTES": str(folder / "notes"),
        "WEBHOOK_URL": receiver.url,
        "WEBHOOK_SECRET": SECRET,
        "ACCOUNTS_PLUGINS": "madcrow-events-webhook",
    }
    with server_class(request.param, folder, faulty=True, environment=environment) as server:
        yield Served(server, folder, receiver)
    receiver.server.shutdown()
    receiver.server.server_close()


def sign_up(client: httpx.Client, email: str, password: str = PASSWORD) -> httpx.Response:
    return client.post("/sign-up", data={"email": email, "name": "Ada", "password": password})


def sign_in(client: httpx.Client, email: str, password: str = PASSWORD) -> httpx.Response:
    return client.post("/sign-in", data={"email": email, "password": password})


def test_from_sign_up_to_lock_out(served: Served) -> None:
    """All that a person does; the alert arrives at the webhook, which was installed and listed."""
    with served.server.client() as client, served.server.client() as elsewhere:
        refused = client.post("/sign-up", data={"email": "ada", "name": "A", "password": PASSWORD})
        assert refused.status_code == 422
        assert sign_up(client, EMAIL).headers["Location"] == "/sign-in?notice=signed-up"
        for browser in (client, elsewhere):
            assert sign_in(browser, EMAIL).headers["Location"] == "/"
            assert "Ada" in browser.get("/").text
        old_cookies = dict(elsewhere.cookies)
        changed = client.post("/password", data={"current": PASSWORD, "new": OTHER_PASSWORD})
        assert changed.headers["Location"] == "/sign-in?notice=changed"
        # All sessions have ended, also for somebody who has kept a cookie.
        for browser in (client, elsewhere):
            browser.cookies.update(old_cookies)
            assert browser.get("/password").headers["Location"] == "/sign-in"
        client.cookies.clear()
        # Each of the two workers of gunicorn counts by itself.
        statuses = [sign_in(client, EMAIL, "a guess").status_code for _ in range(10)]
        assert set(statuses) == {401, 429}
        assert sign_in(client, EMAIL, OTHER_PASSWORD).status_code == 429
    received = eventually(lambda: served.receiver.received)
    assert received[0]["event"] == "suspicious_activity"
    assert {alert["subject"] for alert in received[0]["alerts"]} == {EMAIL}
    assert received[0]["alerts"][0]["ip_address"] == "127.0.0.1"


def test_no_secret_is_seen_anywhere(served: Served) -> None:
    """Not in a page, an event, a log or a file; the cookie has a token, and nobody else has it."""
    before = len(served.entries("user_logged_in"))
    with served.server.client() as client:
        sign_up(client, "eve@example.com")
        shown = sign_in(client, "eve@example.com", "a wrong canary").text
        assert sign_in(client, "eve@example.com").status_code == 303
        token = re.match(r"[^.]+", client.cookies["session"])
        assert token is not None
        shown += "".join(
            client.get(path).text for path in ("/", "/sign-up", "/sign-in", "/password", "/events")
        )
        cookie = client.cookies["session"]
        assert "canary" not in str(dict(client.cookies))
    # Written after all else that has happened.
    eventually(lambda: len(served.entries("user_logged_in")) > before)
    left = shown.encode() + b"".join(
        file.read_bytes() for file in served.folder.iterdir() if file.is_file()
    )
    assert b"eve@example.com" in left
    for secret in (PASSWORD, "a wrong canary", token[0], cookie, SECRET):
        assert secret.encode() not in left


def test_forms_of_other_sites_are_refused(served: Served) -> None:
    """Whoever has signed in; and those that do not say where they come from."""
    with served.server.client() as client:
        sign_up(client, "bob@example.com")
        sign_in(client, "bob@example.com")
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": client.headers["Origin"], "Sec-Fetch-Site": "cross-site"},
            {"Origin": ""},
        ):
            for path in ("/sign-out", "/password", "/sign-in", "/sign-up"):
                assert client.post(path, headers=headers).status_code == 403
        assert client.get("/password").status_code == 200


def test_what_goes_wrong_has_a_page_of_the_application(served: Served) -> None:
    """With its status, and no word of the framework's or of an exception; signed in or not."""
    with served.server.client() as client:
        sign_up(client, "di@example.com")
        for _ in ("a stranger", "a member"):
            for method, path, status, title in (
                ("GET", "/nowhere", 404, "There is no such page"),
                ("POST", "/nowhere", 404, "There is no such page"),
                ("GET", "/static/nowhere.css", 404, "There is no such page"),
                ("GET", "/sign-out", 405, "That cannot be done here"),
                ("GET", "/fail/1", 500, "Something went wrong"),
            ):
                # uvicorn hangs up after a failure.
                answer = client.request(method, path, headers={"Connection": "close"})
                assert answer.status_code == status
                assert f"<h1>{title}</h1>" in answer.text
                assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
                assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
                assert "LookupError" not in answer.text
                # Who has signed in can go on from there, unless that may be what is broken.
                is_known = "session" in client.cookies and status < 500
                assert ('action="/sign-out"' in answer.text) is is_known
            assert "POST" in client.get("/sign-out").headers["Allow"]
            sign_in(client, "di@example.com")
        if served.server.kind == "flask":
            answer = sign_in(client, "a" * 100_000)
            assert answer.status_code == 413
            assert "<h1>This form is too large</h1>" in answer.text
        else:
            form = {"email": EMAIL, "password": "a guess", "remember_me": "perhaps"}
            answer = client.post("/sign-in", data=form)
            assert answer.status_code == 422
            assert "<h1>This is refused</h1>" in answer.text


def test_events_are_refused_to_everyone_else(served: Served) -> None:
    """Page and stream; an administrator gets both, and what has happened."""
    with served.server.client() as client:
        assert client.get("/events").headers["Location"] == "/sign-in"
        refused = client.get("/events/stream")
        assert (refused.status_code, "For administrators" in refused.text) == (403, True)
        sign_up(client, "cy@example.com")
        sign_in(client, "cy@example.com")
        assert client.get("/events").status_code == 403
        assert client.get("/events/stream").status_code == 403
        served.server.grant_admin("cy@example.com")
        assert client.get("/events").status_code == 200
        stream = client.get("/events/stream")
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        assert '"event": "user_registered"' in stream.text
        assert "cy@example.com" not in stream.text


def test_a_request_that_fails_emits_nothing_and_a_broken_handler_costs_none(
    served: Served,
) -> None:
    """The failure of the handler is told; that of the request leaves no trace of its event."""
    for path, status in (("/fail/1", 500), ("/view/1", 200)):
        with served.server.client() as client:
            assert client.get(path).status_code == status
    eventually(lambda: any(path == "/view/1" for path, *_ in served.notes()))
    assert not any(path.startswith("/fail/") for path, *_ in served.notes())

    def logged() -> list[dict[str, Any]]:
        """Return what the event log has of it, once the view is there."""
        entries = served.entries("page_viewed")
        return entries if {"path": "/view/1"} in [it.get("fields") for it in entries] else []

    entries = eventually(logged)
    assert {"path": "/fail/1"} not in [it.get("fields") for it in entries]
    failures = {(it["handler"], it["failure"]) for it in entries if it.get("failure")}
    assert failures == {("faulty._handle.<locals>.broken", "ConnectionError")}


def test_200_requests_at_once_keep_their_scopes_apart(served: Served) -> None:
    """Each event has the id and the user agent of its own request."""
    numbers = range(1000, 1200)

    def view(number: int) -> int:
        headers = {"X-Request-ID": f"r-{number}", "User-Agent": f"agent {number}"}
        with served.server.client() as client:
            return client.get(f"/view/{number}", headers=headers, timeout=30).status_code

    with ThreadPoolExecutor(200) as pool:
        assert set(pool.map(view, numbers)) == {200}
    expected = {(f"/view/{number}", f"r-{number}", f"agent {number}") for number in numbers}

    def noted() -> set[tuple[str, ...]]:
        return {tuple(note) for note in served.notes() if len(note[0]) == len("/view/1000")}

    eventually(lambda: len(noted()) >= len(expected))
    assert noted() == expected


@pytest.mark.parametrize("kind", ["fastapi", "flask"])
def test_sigterm_under_load_loses_no_accepted_event(
    kind: str, tmp_path: Path, server_class: Any
) -> None:
    """Whoever had an answer finds its event handled; the server ends in time, a page open too."""
    environment = {"NOTES": str(tmp_path / "notes")}
    accepted: list[int] = []
    is_over = threading.Event()
    server = server_class(kind, tmp_path, faulty=True, environment=environment)
    served = Served(server, tmp_path, None)  # type: ignore[arg-type]  # nothing is posted

    def ask(first: int) -> None:
        with server.client() as client:
            for number in range(first, 10_000, 6):
                try:
                    if client.get(f"/view/{number}", timeout=10).status_code == 200:
                        accepted.append(number)
                except httpx.TransportError:
                    if is_over.is_set():
                        return
                    time.sleep(0.01)

    def watch() -> None:
        while not is_over.is_set():
            try:
                admin.get("/events/stream", timeout=10)
            except httpx.TransportError:
                time.sleep(0.01)

    with server, server.client() as admin:
        sign_up(admin, EMAIL)
        sign_in(admin, EMAIL)
        server.grant_admin(EMAIL)
        threads = [threading.Thread(target=ask, args=(first,)) for first in range(6)]
        threads.append(threading.Thread(target=watch))
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: len(accepted) > 60)
            took = server.stop()
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
    noted = Counter(int(path.rpartition("/")[2]) for path, *_ in served.notes())
    print(f"{kind}: ended in {took:.2f} s, {len(accepted)} accepted, {noted.total()} noted")
    assert not set(accepted) - set(noted)
    assert set(noted.values()) == {1}
    # The event log has them, too, as far as it reaches back.
    logged = {it["fields"]["path"] for it in served.entries("page_viewed") if "fields" in it}
    assert {f"/view/{number}" for number in accepted[-50:]} <= logged
    assert took < ENDS_WITHIN
