"""What the adapter costs: an empty endpoint with and without it, in process over WSGI.

Run it by hand: python tests/cost.py
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

from flask import Flask
from flask_app.events import Events
from werkzeug.test import create_environ

ROUNDS = 20
REQUESTS = 1000  # in a round, for each of the two
WARM_UP = 500

ENVIRON = create_environ(
    "/",
    "http://127.0.0.1:8000",
    headers={
        # What a browser sends.
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Language": "en-GB,en;q=0.5",
        "Accept-Encoding": "gzip, deflate",
        "Cookie": "session=0123456789abcdef",
    },
    environ_base={"REMOTE_ADDR": "127.0.0.1"},
)


def application() -> Flask:
    """Return an application with one endpoint, which does nothing."""
    app = Flask(__name__)

    @app.get("/")
    def empty() -> str:
        return ""

    return app


def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> Callable[..., object]:
    """Take the head of an answer, as a server would."""
    return print


def microseconds(app: Flask, requests: int) -> float:
    """Return how long one request takes."""
    began = time.perf_counter()
    for _ in range(requests):
        body: Any = app({**ENVIRON}, start_response)
        for _part in body:
            pass
        body.close()
    return (time.perf_counter() - began) / requests * 1_000_000


def main() -> None:
    """Take turns, so that both have the same machine, and print the medians."""
    without, with_events = application(), application()
    Events(with_events)
    for app in (without, with_events):
        microseconds(app, WARM_UP)
    rounds = []
    for number in range(ROUNDS):
        # Who is first in a round takes turns, too.
        first, second = (without, with_events) if number % 2 else (with_events, without)
        took = {id(first): microseconds(first, REQUESTS)}
        took[id(second)] = microseconds(second, REQUESTS)
        rounds.append((took[id(without)], took[id(with_events)]))
    print(f"without: {statistics.median(one for one, _ in rounds):.1f} us")
    print(f"with:    {statistics.median(other for _, other in rounds):.1f} us")
    print(f"ratio:   {statistics.median(other / one for one, other in rounds):.3f}")


if __name__ == "__main__":
    main()
