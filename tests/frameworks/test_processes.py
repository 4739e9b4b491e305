"""Each process that answers requests announces its start and end, and waits for pending work."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytestmark = pytest.mark.once
LIVES = ["system_startup", "system_shutdown"]


@pytest.mark.parametrize(
    ("kind", "stack"),
    [
        ("fastapi uvicorn", ""),
        ("starlette uvicorn", ""),
        ("starlette uvicorn", "added"),
        ("starlette uvicorn", "both"),
        ("starlette uvicorn-worker", ""),
        ("quart uvicorn", ""),
        ("quart hypercorn", ""),
        ("flask sync", ""),
        ("flask gthread", ""),
        ("flask flask", ""),
        ("django gthread", ""),
        ("django runserver", ""),
    ],
)
def test_a_process_announces_its_start_and_its_end(
    make_server: Callable[..., Any], kind: str, stack: str
) -> None:
    """Once each; handlers are waited for, and async ones use the loop of the server, if it has one.

    FastAPI's application gives them their work in another thread.
    """
    with make_server(kind, STACK=stack) as server:
        server.client.get("/emit/200")
        server.client.get("/work")
        server.stop()
    lines = [line for line in server.lines() if line["event"] != "outside"]
    assert {line["process"] for line in lines} == {lines[0]["id_of_process"]}
    events = [line["event"] for line in lines]
    assert events[:3] == ["system_startup", "order_placed", "system_shutdown"]
    assert sorted(events[3:]) == ["async work done", "plain work done"]
    (in_loop_of_server,) = {line.get("in_loop_of_server") for line in lines} - {None}
    assert in_loop_of_server == (server.framework not in {"flask", "django"})


@pytest.mark.parametrize("options", ["--workers 2", "--workers 2 --preload"])
@pytest.mark.parametrize("kind", ["flask sync", "django gthread"])
def test_each_worker_announces_its_start_and_its_end(
    make_server: Callable[..., Any], kind: str, options: str
) -> None:
    """Also where they were forked from a process that had the application already."""
    with make_server(kind, options) as server, ThreadPoolExecutor(8) as pool:
        for _ in range(50):
            [*pool.map(server.client.get, ["/twice?n=1"] * 8)]
            if len({order["process"] for order in server.orders()}) == 2:
                break
        [*pool.map(server.client.get, ["/work"] * 8)]
        server.stop()
    lines = server.lines()
    lives = [(line["event"], line["process"]) for line in lines if line["event"] in LIVES]
    workers = {order["process"] for order in server.orders()}
    assert sorted(lives) == sorted((event, worker) for event in LIVES for worker in workers)
    assert len(workers) == 2
    done = Counter(line["event"] for line in lines)
    assert done["plain work done"] == done["async work done"] == 8
