"""What the adapter costs an empty endpoint, in process: `python tests/cost.py`."""

import asyncio
import statistics
import time
from typing import Any

from fastapi import FastAPI
from fastapi_app.events import init_events

ROUNDS, REQUESTS = 1000, 20  # short rounds, so that both have the same of a busy machine
HEADERS = [(b"host", b"127.0.0.1:8000"), (b"user-agent", b"Mozilla/5.0"), (b"accept", b"*/*")]


async def empty() -> None: ...


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Any) -> None: ...


async def seconds(app: FastAPI) -> float:
    began = time.perf_counter()
    for _ in range(REQUESTS):
        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1"}
        scope |= {"method": "GET", "scheme": "http", "path": "/", "query_string": b""}
        scope |= {"headers": HEADERS, "client": ("127.0.0.1", 50000)}
        await app(scope, receive, send)
    return time.perf_counter() - began


async def main() -> None:
    without, with_events = FastAPI(), FastAPI()
    init_events(with_events)
    for app in (without, with_events):
        app.get("/")(empty)
    rounds = [(await seconds(without), await seconds(with_events)) for _ in range(ROUNDS)]
    best = [min(side) / REQUESTS * 1_000_000 for side in zip(*rounds, strict=True)]
    print(f"best:   {best[1] / best[0]:.3f} ({best[0]:.1f} and {best[1]:.1f} us)")
    print(f"median: {statistics.median(other / one for one, other in rounds):.3f}")


asyncio.run(main())
