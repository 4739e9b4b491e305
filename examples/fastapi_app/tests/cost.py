"""What the adapter costs: an empty endpoint with and without it, in process over ASGI.

Run it by hand: python tests/cost.py
"""

import asyncio
import statistics
import time
from typing import Any

from fastapi import FastAPI
from fastapi_app.events import init_events

ROUNDS = 20
TURNS = 100  # in a round; short ones, so that both have the same of a busy machine
REQUESTS = 10  # in a turn
WARM_UP = 500

# What a browser behind a proxy sends.
HEADERS = [
    (b"host", b"127.0.0.1:8000"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"accept-language", b"en-GB,en;q=0.5"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"connection", b"keep-alive"),
    (b"cookie", b"session=0123456789abcdef"),
]


def application() -> FastAPI:
    """Return an application with one endpoint, which does nothing."""
    app = FastAPI()

    @app.get("/")
    async def empty() -> None: ...

    return app


async def receive() -> dict[str, Any]:
    """Give an empty body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Any) -> None:
    """Take a message, as a server would."""


async def seconds(app: FastAPI, requests: int) -> float:
    """Return how long requests take, one after the other."""
    began = time.perf_counter()
    for _ in range(requests):
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "root_path": "",
            "headers": HEADERS,
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8000),
            "state": {},
        }
        await app(scope, receive, send)
    return time.perf_counter() - began


async def measure() -> tuple[float, float, float]:
    """Return microseconds for a request without and with the adapter, and the ratio: medians."""
    without, with_events = application(), application()
    init_events(with_events)
    for app in (without, with_events):
        await seconds(app, WARM_UP)
    rounds = []
    for _ in range(ROUNDS):
        one = other = 0.0
        for _ in range(TURNS):
            one += await seconds(without, REQUESTS)
            other += await seconds(with_events, REQUESTS)
        rounds.append((one, other))
    for_one = 1_000_000 / (TURNS * REQUESTS)
    return (
        statistics.median(one for one, _ in rounds) * for_one,
        statistics.median(other for _, other in rounds) * for_one,
        statistics.median(other / one for one, other in rounds),
    )


if __name__ == "__main__":
    microseconds = asyncio.run(measure())
    print("without: {:.1f} us\nwith:    {:.1f} us\nratio:   {:.3f}".format(*microseconds))
