"""Servers on loopback, each with an application of one framework and a folder of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

APPLICATIONS = Path(__file__).parent / "applications"
STARTS_WITHIN = 30  # seconds, on a busy machine
COMMANDS = {
    "uvicorn": "uvicorn {app} --host 127.0.0.1 --port {port} --no-proxy-headers "
    "--log-level warning --timeout-graceful-shutdown 5",
    "uvicorn-worker": "gunicorn {app} --bind 127.0.0.1:{port} -k uvicorn.workers.UvicornWorker",
    "hypercorn": "hypercorn {app} --bind 127.0.0.1:{port}",
    "sync": "gunicorn {app} --bind 127.0.0.1:{port} -k sync",
    "gthread": "gunicorn {app} --bind 127.0.0.1:{port} -k gthread --threads 4",
    "flask": "flask --app {app} run --no-reload --port {port}",
}
NEEDED = {"sync": "gunicorn", "gthread": "gunicorn", "runserver": "django"}
RUN_SERVER = """
import on_django
from django.core.management import execute_from_command_line
execute_from_command_line(["", "runserver", "--noreload", "127.0.0.1:{port}"])
"""
KINDS = [
    "fastapi uvicorn",
    "fastapi uvicorn-worker",
    "starlette uvicorn",
    "quart uvicorn",
    "quart hypercorn",
    "flask sync",
    "flask gthread",
    "flask flask",
    "django sync",
    "django gthread",
    "django runserver",
    "django uvicorn",
]


class Server:
    """A running application; a context manager that starts and stops it.

    Args:
        kind: the framework and the server.
        folder: where its handlers write down what they are called with.
        options: further options of the server.
        environment: further variables.
    """

    def __init__(self, kind: str, folder: Path, options: str = "", **environment: str) -> None:
        self.framework, self.name = kind.split()
        self.folder = folder
        self.options = options.split()
        self.environment = environment
        self.output = folder / "output"
        self._heard = folder / "heard"
        self._begins = 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(
            base_url=self.url,
            headers={"Accept-Encoding": "identity"},
            limits=httpx.Limits(max_keepalive_connections=0),  # servers close some when they fail
            trust_env=False,
            timeout=20,
        )

    def _command(self) -> list[str]:
        if self.name == "runserver":
            return [sys.executable, "-c", RUN_SERVER.format(port=self.port)]
        name = "app" if self.framework == "flask" else "application"
        if (self.framework, self.name) == ("django", "uvicorn"):
            name = "asgi_application"
        app = f"on_{self.framework}:{name}"
        command = COMMANDS[self.name].format(app=app, port=self.port)
        return [sys.executable, "-m", *command.split(), *self.options]

    def __enter__(self) -> Self:
        (self.folder / "file.bin").write_bytes(b"0123456789" * 100_000)
        self._heard.touch()
        paths = [str(APPLICATIONS), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **self.environment}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                self._command(),
                cwd=self.folder,
                env={**environment, "FOLDER": str(self.folder)},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # A shell starts what runs in its background with an interrupt that is ignored.
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # no thread runs
            )
        ends = time.monotonic() + STARTS_WITHIN
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except OSError:
                if self.process.poll() is not None or time.monotonic() > ends:
                    self.stop(signal.SIGKILL)
                    pytest.fail(f"it did not start:\n{self.output.read_text()}")
                time.sleep(0.02)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        if self.process.returncode is None:
            self.stop()

    def stop(self, how: signal.Signals | None = None) -> None:
        """Stop it as who runs it does: from outside, or at the keyboard."""
        is_for_development = self.name in {"flask", "runserver"}
        self.process.send_signal(how or (signal.SIGINT if is_for_development else signal.SIGTERM))
        try:
            self.process.wait(15)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # workers whose master is gone

    def lines(self) -> list[dict[str, Any]]:
        """Return what was written down since the test began."""
        written, _, _unfinished = self._heard.read_bytes()[self._begins :].rpartition(b"\n")
        return [json.loads(line) for line in written.splitlines()]

    def orders(self) -> list[dict[str, Any]]:
        """Return the contexts of the orders that were placed since the test began."""
        return [line for line in self.lines() if line["event"] == "order_placed"]

    def numbers(self) -> list[int]:
        """Return the numbers of these orders."""
        return [order["number"] for order in self.orders()]

    def wait_for(self, *numbers: int) -> None:
        """Wait until just these orders were placed."""
        wait_until(lambda: self.numbers() == [*numbers], lambda: self.numbers())

    def begin(self) -> None:
        """Begin a test."""
        self._begins = self._heard.stat().st_size
        self._output_begins = self.output.stat().st_size
        (self.folder / "go").unlink(missing_ok=True)

    def go_on(self) -> None:
        """Let a stream go on after its first part."""
        (self.folder / "go").touch()

    def check(self) -> None:
        """See that nothing of a request was left behind, and that nothing was logged by us."""
        for _ in range(2):  # each looks first
            self.client.get("/emit/200")
        outside = [line for line in self.lines() if line["event"] in {"outside", "leak"}]
        assert outside
        assert {*map(str, outside)} == {str({"event": "outside", "process": outside[0]["process"]})}
        output = self.output.read_bytes()[self._output_begins :].decode()
        assert not re.findall("^(?:WARNING|ERROR|CRITICAL):madcrow_events.*", output, re.MULTILINE)


def wait_until(condition: Callable[[], bool], found: Callable[[], object] = str) -> None:
    """Wait until a condition holds, for 10 seconds at most."""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail(f"this did not come true; found: {found()}")


def skip_unless_installed(kind: str) -> None:
    """Skip the test if its framework or server is missing."""
    for name in kind.replace("-worker", " gunicorn").split():
        pytest.importorskip(NEEDED.get(name, name))


@pytest.fixture
def make_server(tmp_path: Path) -> Callable[..., Server]:
    """Return what makes a server for one test, which is to be started."""

    def make(kind: str, options: str = "", **environment: str) -> Server:
        skip_unless_installed(kind)
        return Server(kind, tmp_path, options, **environment)

    return make


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """Return what gives the running server of a kind, of which there is one."""
    running: dict[str, Server] = {}
    with ExitStack() as stack:

        def give(kind: str) -> Server:
            if kind not in running:
                server = Server(kind, tmp_path_factory.mktemp(kind.replace(" ", "-")))
                running[kind] = stack.enter_context(server)
            return running[kind]

        yield give


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, servers: Callable[[str], Server]) -> Iterator[Server]:
    """Return a running server; see at the end that the test has left nothing behind."""
    skip_unless_installed(request.param)
    server = servers(request.param)
    server.begin()
    yield server
    server.check()
