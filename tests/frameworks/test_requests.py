"""Events of a request know where it came from, and go out if it has succeeded."""

import asyncio
from itertools import product
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.once


def test_an_event_knows_request_id_address_and_user_agent(server: Any) -> None:
    """They are those of the request; long ones are cut, and empty ones are left out."""
    server.client.get("/emit/200", headers={"X-Request-ID": "r-17", "User-Agent": "x" * 300})
    server.client.get("/emit/200", headers={"X-Request-ID": "r-18", "User-Agent": ""})
    known = {"event": "order_placed", "number": 1, "ip_address": "127.0.0.1"}
    first, second = server.orders()
    assert first.pop("process") == second.pop("process")
    assert first == {**known, "request_id": "r-17", "user_agent": "x" * 256}
    assert second == {**known, "request_id": "r-18"}


def test_a_request_without_a_proper_id_gets_a_new_one(server: Any) -> None:
    """One without any id, and one whose id is empty, too long or has strange characters."""
    for given in (None, "", "a b", "x" * 129, "<script>"):
        headers = {} if given is None else {"X-Request-ID": given}
        server.client.get("/emit/200", headers=headers)
    made = {order["request_id"] for order in server.orders()}
    assert len(made) == 5
    assert {len(it) for it in made} == {32}


def test_what_fails_emits_nothing(server: Any) -> None:
    """An exception, a status of 500 or above, and that of an error handler."""
    paths = {"/raise": 500, "/emit/500": 500, "/emit/503": 503, "/abort/500": 500}
    for path, status in {**paths, "/handled/502": 502}.items():
        assert server.client.get(path).status_code == status, path
        assert server.numbers() == [], path


def test_a_refusal_is_no_failure(server: Any) -> None:
    """Else nobody would hear of a sign-in that failed."""
    for count, path in enumerate(["/emit/404", "/emit/409", "/abort/403", "/abort/404"], 1):
        assert server.client.get(path).status_code == int(path[-3:]), path
        assert server.numbers() == [1] * count, path


def test_an_answer_to_an_exception_lets_the_events_go_out(server: Any) -> None:
    """One for its class, and one for all exceptions or for 500; they emit, too."""
    headers = {"X-Request-ID": "r-17"}
    assert server.client.get("/handled/200", headers=headers).status_code == 200
    assert server.numbers() == [1, 8]
    assert server.client.get("/raise?answer=200", headers=headers).status_code == 200
    assert server.numbers() == [1, 8, 1, 9]
    assert {order["request_id"] for order in server.orders()} == {"r-17"}


def test_an_answer_needs_no_body(server: Any) -> None:
    """The answer to HEAD has none, and neither have those with 204 and 304."""
    requests = [*product(("GET", "HEAD"), ("/emit/200", "/emit/204", "/emit/304"))]
    for count, (method, path) in enumerate(requests, 1):
        assert server.client.request(method, path).status_code == int(path[-3:]), path
        assert server.numbers() == [1] * count, (method, path)


def test_a_mounted_application_is_a_part_of_the_request(server: Any) -> None:
    """Though it has its own middleware: one request, one id, no event twice."""
    headers = {"X-Request-ID": "r-17"}
    assert server.client.get("/mounted/emit/200", headers=headers).status_code == 200
    assert server.client.get("/mounted/emit/500", headers=headers).status_code == 500
    (order,) = server.orders()
    assert order["request_id"] == "r-17"


async def test_200_concurrent_requests_keep_apart(server: Any) -> None:
    """Each event has the id of its request; 20 do where hardly two are answered at a time."""
    is_slow = server.framework == "django" and server.name == "uvicorn"
    count = 20 if is_slow or server.name in {"sync", "flask", "runserver"} else 200
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(trust_env=False, limits=limits, timeout=30) as client:

        async def ask(number: int) -> int:
            url = f"{server.url}/twice?n={number}"
            return (await client.get(url, headers={"X-Request-ID": f"r-{number}"})).status_code

        assert {*await asyncio.gather(*map(ask, range(count)))} == {200}
    assert sorted(server.numbers()) == sorted([*range(count)] * 2)
    assert all(it["request_id"] == f"r-{it['number']}" for it in server.orders())


def test_what_comes_after_the_response_is_a_part_of_the_request(server: Any) -> None:
    """Background tasks, what closes the response, and Django's signal: they have its id."""
    server.client.get("/after/well", headers={"X-Request-ID": "r-17"})
    server.wait_for(1, 2)
    assert {order["request_id"] for order in server.orders()} == {"r-17"}


@pytest.mark.parametrize(
    "server",
    [
        "fastapi uvicorn",
        "starlette uvicorn",
        "flask sync",
        "flask gthread",
        "flask flask",
        "django sync",
        "django gthread",
        "django runserver",
        "django uvicorn",
    ],
    indirect=True,
)
def test_what_breaks_after_the_response_drops_what_it_has_emitted(server: Any) -> None:
    """What was emitted before the head of the response has gone out."""
    server.client.get("/after/badly")
    server.client.get("/emit/200?n=7")  # in the place of the request before
    server.wait_for(1, 7)


@pytest.mark.parametrize("server", ["fastapi uvicorn"], indirect=True)
def test_a_transaction_is_committed_before_its_events_go_out(server: Any) -> None:
    """If it ends with the function; FastAPI's own choice is the end of the request."""
    assert server.client.get("/transaction").status_code == 200
    story = [line["event"] for line in server.lines() if line["event"] != "outside"]
    assert story == ["committed", "order_placed"]


@pytest.mark.parametrize("server", ["flask gthread", "django gthread"], indirect=True)
def test_an_async_view_is_a_part_of_the_request(server: Any) -> None:
    """Though it runs in a loop of its own."""
    pytest.importorskip("asgiref")
    server.client.get("/async", headers={"X-Request-ID": "r-17"})
    assert server.numbers() == [1, 2]
    assert {order["request_id"] for order in server.orders()} == {"r-17"}
