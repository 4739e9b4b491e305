"""What the adapter costs an empty endpoint, in process: `python tests/cost.py`."""

import statistics
import time
from typing import Any

from flask import Flask
from flask_app.events import Events
from werkzeug.test import create_environ

ROUNDS, REQUESTS = 1000, 20  # short rounds, so that both have the same of a busy machine
ENVIRON = create_environ("/", "http://127.0.0.1:8000", headers={"User-Agent": "Mozilla/5.0"})


def application() -> Flask:
    app = Flask(__name__)
    app.get("/")(lambda: "")
    return app


def seconds(app: Flask) -> float:
    began = time.perf_counter()
    for _ in range(REQUESTS):
        body: Any = app({**ENVIRON}, lambda status, headers: print)
        list(body)
        body.close()
    return time.perf_counter() - began


without, with_events = application(), application()
Events(with_events)
rounds = [(seconds(without), seconds(with_events)) for _ in range(ROUNDS)]
best = [min(side) / REQUESTS * 1_000_000 for side in zip(*rounds, strict=True)]
print(f"best:   {best[1] / best[0]:.3f} ({best[0]:.1f} and {best[1]:.1f} us)")
print(f"median: {statistics.median(other / one for one, other in rounds):.3f}")
