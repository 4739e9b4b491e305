"""Each process that answers requests tells of its start and its end."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from flask_app.events import Events

from madcrow_events import (
    EventDispatcher,
    SystemStartupEventContext,
    on_event,
    set_event_dispatcher,
)

MakeApp = Callable[..., Flask]

_PROGRAM = """
import os, sys, time
from flask import Flask
from flask_app.events import Events
from madcrow_events import emit_event, on_event

@on_event("system_startup")
def startup(process_id):
    print("startup", process_id == os.getpid(), flush=True)

@on_event("system_shutdown", background=True)
def shutdown(uptime):
    time.sleep(0.1)
    print("shutdown", uptime < 60, flush=True)

app = Flask("shop")
Events(app)
app.get("/")(lambda: "done")
"""


def output_of(program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM + program],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_the_first_request_tells_of_the_start_and_the_exit_of_the_end() -> None:
    program = "app.test_client().get('/'); print('served'); app.test_client().get('/')"
    assert output_of(program) == ["startup True", "served", "shutdown True"]


def test_a_process_without_requests_tells_nothing() -> None:
    assert output_of("") == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork")
def test_a_forked_process_has_a_start_and_an_end_of_its_own() -> None:
    program = """
app.test_client().get("/")
if os.fork() == 0:
    print("child", flush=True)
    app.test_client().get("/")
else:
    os.wait()
    print("parent", flush=True)
"""
    assert output_of(program) == [
        "startup True",
        "child",
        "startup True",
        "shutdown True",
        "parent",
        "shutdown True",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork")
def test_a_forked_process_without_requests_tells_nothing() -> None:
    program = """
app.test_client().get("/")
if os.fork():
    os.wait()
"""
    assert output_of(program) == ["startup True", "shutdown True"]


def test_requests_that_begin_together_wait_for_one_start(make_app: MakeApp) -> None:
    starts, seen = [], []
    app = make_app()
    app.get("/started", endpoint="started")(lambda: seen.append(len(starts)) or "")
    together = threading.Barrier(8)

    @on_event("system_startup")
    def start() -> None:
        time.sleep(0.1)
        starts.append(os.getpid())

    def ask() -> None:
        together.wait(10)
        app.test_client().get("/started")

    with ThreadPoolExecutor(8) as pool:
        for asked in [pool.submit(ask) for _ in range(8)]:
            asked.result(10)
    assert starts == [os.getpid()]
    assert seen == [1] * 8


def test_a_first_request_that_fails_has_told_of_the_start(make_app: MakeApp, heard: Any) -> None:
    starts = []

    @on_event("system_startup")
    def start(context: SystemStartupEventContext) -> None:
        starts.append((context.process_id, context.request_id))

    app = make_app()
    app.get("/broken", endpoint="broken")(lambda: 1 / 0)
    app.test_client().get("/broken")
    assert starts == [(os.getpid(), None)]
    assert heard == []


def test_a_start_that_raises_is_not_told_again(make_app: MakeApp, heard: Any) -> None:
    set_event_dispatcher(EventDispatcher(on_error="raise"))
    on_event("system_startup")(lambda: 1 / 0)
    app = make_app()
    with pytest.raises(ZeroDivisionError):
        app.test_client().get("/")
    assert app.test_client().get("/").status_code == 200


def test_a_handler_of_the_start_may_make_requests(heard: Any) -> None:
    """To warm a cache, say; the process has started once."""
    app = Flask("shop")
    app.get("/")(lambda: "")
    starts: list[int] = []

    @on_event("system_startup")
    def warm(process_id: int) -> None:
        starts.append(process_id)
        assert app.test_client().get("/").status_code == 200

    Events(app)
    assert app.test_client().get("/").status_code == 200
    assert len(starts) == 1


def test_work_that_outlasts_the_patience_of_the_end_is_told() -> None:
    """A server may end the process before the package itself has waited enough."""
    program = """
import time
import flask_app.events
from flask import Flask
from madcrow_events import emit_event, on_event

flask_app.events._END_SECONDS = 0.1

@on_event("account_closed", background=True)
def export(sender):
    time.sleep(0.5)
    print("exported")

app = Flask("shop")
flask_app.events.Events(app)

@app.get("/")
def close():
    emit_event("account_closed", user_id=1)
    return ""

app.test_client().get("/")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert "still pending after 0.1 s of the end" in done.stderr
    assert done.stdout == "exported\n"
