"""A prefork server with background handlers loses none of its requests' work (B2)."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

REQUESTS = 500
CLIENTS = 4
LONGEST = 5.0
MARGIN = 3.0  # seconds, in which the server itself ends

pytestmark = [
    pytest.mark.soak,
    pytest.mark.guarantee("B2"),
    pytest.mark.skipif(sys.platform == "win32", reason="gunicorn does not run on Windows"),
]

APP = """
import asyncio, os, time
from madcrow_events import EventDispatcher, SignalRegistry

signals = SignalRegistry()
dispatcher = EventDispatcher(signals, max_workers=2)
notes = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
answered = signals.signal("answered")

@answered.on(background=True)
def plain(number):
    time.sleep(0.01)
    os.write(notes, f"{os.getpid()} plain {number}\\n".encode())

@answered.on(background=True)
async def coroutine(number):
    await asyncio.sleep(0.01)
    os.write(notes, f"{os.getpid()} async {number}\\n".encode())

if os.environ["MASTER_EMITS"] == "yes":
    for number in range(-20, 0):
        dispatcher.emit(answered, number=number)

def app(environ, start_response):
    dispatcher.emit(answered, number=environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


def answer(port: int, number: int) -> str:
    """Ask the server, and return which process answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", f"/?{number}")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("preload", [False, True], ids=["", "preloaded, with work in the master"])
def test_a_prefork_server_does_all_work_of_its_requests(
    tmp_path: Path, scale: float, preload: bool
) -> None:
    """Two workers answer 500 requests, and are told to end right after."""
    (tmp_path / "app.py").write_text(APP)
    notes = tmp_path / "notes"
    environment = {key: value for key, value in os.environ.items() if "COV" not in key}
    environment |= {
        "NOTES": str(notes),
        "MASTER_EMITS": "yes" if preload else "no",
        "HOME": str(tmp_path),  # some versions leave a socket there
        "PYTHONWARNINGS": "ignore",
    }
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        command = [sys.executable, "-m", "gunicorn", "--workers=2", "--log-level=warning"]
        command += [f"--bind=fd://{listening.fileno()}", *["--preload"][:preload], "app:app"]
        with subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment,
            pass_fds=[listening.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as server:
            try:
                numbers = range(int(REQUESTS * scale))
                port = listening.getsockname()[1]
                with ThreadPoolExecutor(CLIENTS) as pool:
                    answered = list(pool.map(lambda number: answer(port, number), numbers))
                server.send_signal(signal.SIGTERM)
                began = time.monotonic()
                written = server.communicate(timeout=60)[0]
                took = time.monotonic() - began
            finally:
                server.kill()
    print(f"ended in {took:.2f} s, answered by {Counter(answered)}\n{written}")
    expected = Counter(
        f"{process} {kind} {number}"
        for kind in ("plain", "async")
        for number, process in [
            *enumerate(answered),
            *((number, str(server.pid)) for number in range(-20, 0) if preload),
        ]
    )
    assert Counter(notes.read_text().splitlines()) == expected
    assert server.returncode == 0
    assert took < LONGEST + MARGIN
    assert "Error" not in written
