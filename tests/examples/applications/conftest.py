"""Servers on loopback that run the example applications, each with a folder of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import pytest

EXAMPLES = Path(__file__).parents[3] / "examples"
SECRET_KEY = "not a secret, for it is only used by tests"
STARTS_WITHIN = 30  # seconds; two processes that import all they need, on a busy machine


class Server:
    """An application as it is served to users; a context manager that starts and stops it.

    Args:
        kind: `fastapi`, under uvicorn, or `flask`, under gunicorn with two workers of four threads.
        folder: where it keeps its files.
        faulty: whether it is the application of `faulty.py`.
        environment: further variables.

    Attributes:
        url: where it is; the same after a restart.
    """

    def __init__(
        self,
        kind: str,
        folder: Path,
        *,
        faulty: bool = False,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self.folder = folder
        self.application = f"faulty:{kind}" if faulty else f"{kind}_app:create_app"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = folder / "output.txt"
        paths = str(Path(__file__).parent), os.environ.get("PYTHONPATH")
        self._environment = {
            **os.environ,
            "ACCOUNTS_FOLDER": str(folder),
            "ACCOUNTS_SECRET_KEY": SECRET_KEY,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            **(environment or {}),
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                self._command(),
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        ends = time.monotonic() + STARTS_WITHIN
        while True:
            try:
                httpx.get(f"{self.url}/static/icon.svg", trust_env=False).raise_for_status()
            except httpx.HTTPError:
                has_ended = self.process.poll() is not None
                if has_ended or time.monotonic() > ends:
                    self.stop(signal.SIGKILL)
                    pytest.fail(f"{self.kind} did not start:\n{self.output.read_text()}")
                time.sleep(0.05)
            else:
                return

    def _command(self) -> list[str]:
        if self.kind == "fastapi":
            serve = f"uvicorn --factory {self.application} --no-proxy-headers --log-level warning"
            options = f"--host 127.0.0.1 --port {self.port} --timeout-graceful-shutdown 2"
        else:
            serve = f"gunicorn {self.application}() -c {EXAMPLES / 'flask_app/gunicorn.conf.py'}"
            options = f"--bind 127.0.0.1:{self.port} --workers 2 --threads 4"
        return [sys.executable, "-m", *serve.split(), *options.split()]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> float:
        """Stop it, and return how many seconds it took."""
        began = time.monotonic()
        self.process.send_signal(how)
        try:
            self.process.wait(15)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # workers whose master is gone
        return time.monotonic() - began

    def restart(self) -> None:
        """Stop it, and start it at the same address."""
        self.stop()
        self.start()

    def client(self) -> httpx.Client:
        """Return a client that says, as a browser does, that its forms come from this site."""
        return httpx.Client(base_url=self.url, headers={"Origin": self.url}, trust_env=False)

    def grant_admin(self, email: str) -> None:
        """Make an administrator of an account, as who runs the application does it."""
        command = [sys.executable, "-m", "accounts", "grant-admin", email]
        subprocess.run(command, env=self._environment, check=True, capture_output=True)


@pytest.fixture(scope="session")
def server_class() -> type[Server]:
    """Return the class of the servers."""
    return Server


@pytest.fixture(scope="module")
def server_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """Return what gives the running server of a kind; a module has one of each kind."""
    servers: dict[str, Server] = {}

    def serve(kind: str) -> Server:
        if kind not in servers:
            servers[kind] = Server(kind, tmp_path_factory.mktemp(kind))
            servers[kind].start()
        return servers[kind]

    yield serve
    for server in servers.values():
        server.stop()
