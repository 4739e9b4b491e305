"""Our middleware stands beside others, outside and inside of them."""

from contextlib import suppress
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.once
on_starlette = pytest.mark.parametrize("server", ["starlette uvicorn"], indirect=True)
STACKS = ["added", "around", "inside", "both", "gzip-around", "gzip-inside"]
GZIP = {"Accept-Encoding": "gzip"}


@on_starlette
@pytest.mark.parametrize("stack", STACKS)
def test_requests_are_as_without_the_other(server: Any, stack: str) -> None:
    """Those that succeed, and those that fail."""
    get, headers = server.client.get, {"X-Request-ID": "r-17", **GZIP}
    answer = get(f"/{stack}/emit/200", headers=headers)
    assert answer.content == b"." * 1000
    assert answer.headers.get("content-encoding") == ("gzip" if "gzip" in stack else None)
    assert get(f"/{stack}/emit/404", headers=headers).status_code == 404
    assert get(f"/{stack}/emit/503", headers=headers).status_code == 503
    assert get(f"/{stack}/handled/502", headers=headers).status_code == 502
    assert get(f"/{stack}/mounted/emit/200", headers=headers).status_code == 200
    assert server.numbers() == [1] * 3
    assert {order["request_id"] for order in server.orders()} == {"r-17"}


@on_starlette
@pytest.mark.parametrize("stack", STACKS)
def test_streams_are_as_without_the_other(server: Any, stack: str) -> None:
    """Those that end well, and those that a client leaves."""
    with server.client.stream("GET", f"/{stack}/stream") as response:
        parts = response.iter_raw()
        assert next(parts) == b"first"
        # GZipMiddleware waits for the first part, and BaseHTTPMiddleware lets the stream go ahead.
        assert server.numbers() in ([1], [1, 2][: 1 + ("inside" in stack)])
        server.go_on()
        assert [*parts] == [b"last!"]
        assert server.numbers() == [1, 2, 3, 4]
    server.begin()
    with server.client.stream("GET", f"/{stack}/stream?then=more") as response:
        assert next(response.iter_raw()) == b"first"
    server.go_on()
    server.wait_for(1, 2, 3)


def break_off(server: Any, path: str) -> list[bytes]:
    """Ask for a stream that breaks, and return what follows its first part."""
    rest = []
    with server.client.stream("GET", path) as response:
        parts = response.iter_raw()
        assert next(parts) == b"first"
        server.go_on()
        rest += parts
    return rest


@on_starlette
@pytest.mark.parametrize("stack", [it for it in STACKS if it != "inside"])
def test_a_stream_that_breaks_drops_what_it_has_emitted(server: Any, stack: str) -> None:
    """If ours is the innermost; Starlette's handler for 500 stands outside, and emits at once.

    GZipMiddleware inside may wait for the first part, so that what it has emitted goes out.
    """
    with suppress(httpx.RemoteProtocolError):
        assert break_off(server, f"/{stack}/stream?then=break") == []
    server.client.get("/emit/200?n=7")
    assert server.numbers() in ([1, 9, 7], [1, *[2] * (stack == "gzip-inside"), 9, 7])


@on_starlette
def test_a_break_that_another_hides_is_none(server: Any) -> None:
    """A new BaseHTTPMiddleware ends the response as if it were whole, also for the client."""
    try:
        break_off(server, "/inside/stream?then=break")
        is_hidden = True
    except httpx.RemoteProtocolError:
        is_hidden = False
    server.client.get("/emit/200?n=7")
    assert (3 in server.numbers()) == is_hidden


@pytest.mark.parametrize("server", ["django sync", "django gthread"], indirect=True)
def test_django_may_compress(server: Any) -> None:
    """Responses and streams."""
    answer = server.client.get("/emit/200", headers=GZIP)
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == b"." * 1000
    server.go_on()
    answer = server.client.get("/stream", headers=GZIP)
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == b"firstlast!"
    assert server.numbers() == [1, 1, 2, 3, 4]
