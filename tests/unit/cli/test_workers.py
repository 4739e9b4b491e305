"""The subcommand `worker` as service managers run it: in a process, ended by signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.command import in_a_process

pytest.importorskip("sqlalchemy")

from support.durable_shop import commit_in  # once it is known to be there

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(sys.platform == "win32", reason="has no SIGTERM to catch"),
]

WORKER = ("worker", "--app", "durable_shop", "--app-dir", ".")


@contextmanager
def a_worker(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Yield a process of the command, which is killed if the test fails."""
    process = subprocess.Popen(
        [sys.executable, "-m", "madcrow_events", *WORKER],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[str]) -> str:
    """Return the next line of its output."""
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda it: it.name)
def test_a_signal_lets_handlers_finish(tmp_path: Path, number: signal.Signals):
    """The status is 0, and what they handled is not handled again."""
    commit_in(tmp_path, "OrderPlaced(order_id=150)")
    with a_worker(tmp_path) as process:
        assert {line_of(process), line_of(process)} == {"booked 150\n", "slow\n"}
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "mailed\n")
    assert "Traceback" not in err
    assert in_a_process(*WORKER, "--once", folder=tmp_path).out == ""


@pytest.mark.guarantee("D9")
@pytest.mark.parametrize("order_id", [2000, 3000], ids=["plain", "async"])
def test_a_second_signal_gives_up_what_runs(tmp_path: Path, order_id: int):
    """The status is 0, and another worker handles it at once, without waiting for the lease."""
    commit_in(tmp_path, f"OrderPlaced(order_id={order_id})")
    with a_worker(tmp_path) as process:
        lines = {line_of(process) for _ in range(2 if order_id == 2000 else 3)}
        assert lines > {f"booked {order_id}\n"}
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)  # two that come at once are one
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        out, _ = process.communicate(timeout=15)
        assert time.monotonic() - began < 3
    assert (process.returncode, out) == (0, "")
    status = in_a_process("outbox", "status", "--json", *WORKER[1:], folder=tmp_path).record
    assert {it["name"]: it["due"] + it["running"] for it in status["handlers"]}["mail"] == 1


def test_the_worker_logs_to_the_standard_error(tmp_path: Path):
    """With times and levels, where the application has not said where the log goes."""
    commit_in(tmp_path, "OrderPlaced(order_id=13)")
    ended = in_a_process(*WORKER, "--once", folder=tmp_path)
    assert (ended.status, ended.out) == (0, "booked 13\n")
    assert " INFO madcrow_events: the outbox worker handles book, mail, wait\n" in ended.err
    assert " ERROR madcrow_events: delivery 1-2 of order_placed to mail is dead " in ended.err


@pytest.mark.parametrize("subcommand", [("worker",), ("outbox", "status"), ("outbox", "ddl")])
def test_without_the_extra_the_command_says_what_to_install(subcommand: tuple[str, ...]):
    """In one line, before it imports the application."""
    code = "import sys; sys.modules['sqlalchemy'] = None; from madcrow_events.cli import main; "
    told = in_a_process(*subcommand, *WORKER[1:], program=("-c", f"{code}main()"))
    message = "madcrow-events: sqlalchemy is missing: pip install 'madcrow-events[outbox]'\n"
    assert told == (2, "", message)


@pytest.mark.parametrize("columns", [80, 40])
def test_the_status_in_a_terminal(tmp_path: Path, columns: int):
    """It fits, in colours."""
    from support.terminal import in_a_terminal

    commit_in(tmp_path, "OrderPlaced(order_id=13), OrderPlaced(order_id=1), OrderLost(order_id=5)")
    assert in_a_process(*WORKER, "--once", folder=tmp_path).status == 0
    seen = in_a_terminal("outbox", "status", *WORKER[1:], folder=tmp_path, columns=columns)
    assert seen.status == 0
    assert "\x1b[" in seen.sent
    assert max(map(len, seen.lines)) <= columns
    assert os.linesep.join(seen.lines).count("order_placed") >= 2
