"""Whatever is sent to the FastAPI application, it has an answer: schemathesis makes it up."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

NEEDED = ("accounts", "fastapi_app", "schemathesis")
missing = [name for name in NEEDED if find_spec(name) is None]
if missing:
    pytest.skip(f"not installed: {', '.join(missing)}", allow_module_level=True)

import schemathesis  # noqa: E402  # once it is known that all is there
from accounts import AccountLocked, FailureRequested, PageViewed, Settings, event_log, service  # noqa: E402  # likewise
from argon2 import PasswordHasher  # noqa: E402  # likewise
from fastapi_app import create_app  # noqa: E402  # likewise
from schemathesis.specs.openapi.checks import (  # noqa: E402  # likewise
    negative_data_rejection,
    positive_data_acceptance,
)

from madcrow_events import madcrow_signals  # noqa: E402  # likewise

pytestmark = pytest.mark.once

EMAIL = "ada@example.com"
PASSWORD = "four words or even more"
# A form takes any text, and its page tells what does not fit.
OF_THE_FORMS = [negative_data_rejection, positive_data_acceptance]
FORMS = ("password", "sign-in", "sign-up")
ROUTES = {
    *("GET /", "GET /events", "GET /events/stream", "POST /events/break", "POST /sign-out"),
    *(f"{method} /{form}" for method in ("GET", "POST") for form in FORMS),
}
HERE = {"Origin": "http://testserver"}  # what a browser says of forms of this site


@pytest.fixture(params=["a stranger", "an administrator"])
def schema(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """Return the API, with the cookie of who asks."""
    quick = partial(PasswordHasher, time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(service, "PasswordHasher", quick)
    monkeypatch.setattr(event_log, "STREAM_SECONDS", 0.0)
    with madcrow_signals.isolated():
        # They were declared by the import, but the registry of a test begins without them.
        for event in (PageViewed, AccountLocked, FailureRequested):
            madcrow_signals.event(event)
        app = create_app(Settings(tmp_path, "not a secret, for it is only used by tests"))
        made = schemathesis.openapi.from_asgi("/openapi.json", app)
        made.config.headers = HERE
        if request.param == "an administrator":
            pages = app.state.pages
            visit = pages.visit({}, None, is_https=False)
            pages.sign_up(visit, EMAIL, "Ada", PASSWORD)
            signed_in = pages.sign_in(visit, EMAIL, PASSWORD, remember_me=False)
            service.Accounts(tmp_path, app.state.event_dispatcher).grant_admin(EMAIL)
            cookie = signed_in.headers["Set-Cookie"].partition(";")[0]
            made.config.headers = {**HERE, "Cookie": cookie}
        yield made
        app.state.event_log.close()


def test_no_request_breaks_it(schema: Any) -> None:
    """No answer is a failure of the server, and each is one that the API describes."""
    asked = []
    operations = [result.ok() for result in schema.get_all_operations()]
    # The forms last, for one of them ends the session.
    for operation in sorted(operations, key=lambda operation: operation.method.upper() == "POST"):

        @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            case.call_and_validate(allow_redirects=False, excluded_checks=OF_THE_FORMS)

        check()
        asked.append(operation.label)
    assert len(asked) == len(ROUTES)
    assert set(asked) == ROUTES
