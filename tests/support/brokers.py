"""Servers of Redis, RabbitMQ and NATS that a test starts, kills and starts again.

Each listens at a free port of this machine only, keeps what it stores in a folder, and ends with
its test. What it has to say goes to the file `log` in that folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

__all__ = ["Server", "a_nats_server", "a_rabbit_server", "a_redis_server"]

HOST = "127.0.0.1"


class Server:
    """A server that runs in a process of its own, and can be killed and started again.

    Args:
        url: where clients find it.
        port: the port at which it listens.
        command: the command that starts it and stays as long as it runs.
        folder: where it runs, and writes its log.
        env: further variables of its environment.
        greeting: what is sent to it as a question whether it is ready, if it does not speak first.
    """

    def __init__(
        self,
        url: str,
        port: int,
        command: list[str],
        folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        greeting: bytes = b"",
    ) -> None:
        self.url = url
        self.port = port
        self._command = command
        self._folder = folder
        self._env = {**os.environ, **(env or {})}
        self._greeting = greeting
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 60) -> None:
        """Start it, and wait until it answers, for so many seconds at most."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + seconds
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                said = (self._folder / "log").read_text(errors="replace")[-2000:]
                message = f"{self._command[0]} has not started: {said}"
                raise RuntimeError(message)
            time.sleep(0.02)

    def stop(self) -> None:
        """Kill it by SIGKILL, so that it has no time to write anything."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)
            self._process = None

    def restart(self) -> None:
        """Kill it by SIGKILL, and start it again with what it has stored."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Stop it by SIGSTOP: it keeps its connections, and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), 1) as connection:
                connection.settimeout(5)
                connection.sendall(self._greeting)
                answer = connection.recv(64)
        except OSError:
            return False
        return bool(answer) and not answer.startswith(b"-LOADING")


@contextmanager
def a_redis_server(folder: Path) -> Iterator[Server]:
    """Start a Redis that has written each command to the disk before it answers."""
    port = _free_port()
    options = ["--bind", HOST, "--port", str(port), "--dir", str(folder), "--save", ""]
    options += ["--appendonly", "yes", "--appendfsync", "always"]
    command = [_program("redis-server"), *options]
    server = Server(f"redis://{HOST}:{port}", port, command, folder, greeting=b"PING\r\n")
    with _running(server):
        yield server


@contextmanager
def a_nats_server(folder: Path) -> Iterator[Server]:
    """Start a NATS with JetStream."""
    port = _free_port()
    options = ["-js", "-sd", str(folder), "-a", HOST, "-p", str(port)]
    server = Server(f"nats://{HOST}:{port}", port, [_program("nats-server"), *options], folder)
    with _running(server):
        yield server


@contextmanager
def a_rabbit_server(folder: Path) -> Iterator[Server]:
    """Start a RabbitMQ, and the port mapper of Erlang that it needs; it takes some seconds."""
    # What is in the path may be a script that changes the user; the folder belongs to this one.
    program = Path(_program("rabbitmq-server")).resolve().with_name("rabbitmq-server")
    port, distribution, mapper_port = _free_port(), _free_port(), _free_port()
    (folder / "plugins").write_text("[].\n")
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.local = {HOST}:{port}\ndisk_free_limit.absolute = 1MB\n"
        "max_message_size = 2000000\n"
    )
    name = f"madcrow-events-{uuid4().hex[:8]}@localhost"
    env = {
        "ERL_EPMD_ADDRESS": HOST,
        "ERL_EPMD_PORT": str(mapper_port),
        "HOME": str(folder),  # for the cookie of Erlang
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_MNESIA_BASE": str(folder),
        "RABBITMQ_NODENAME": name,
        "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the server, whose id is known then
    }
    mapper = subprocess.Popen(
        [_program("epmd"), "-address", HOST, "-port", str(mapper_port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        server = Server(
            f"amqp://guest:guest@{HOST}:{port}/",
            port,
            [str(program)],
            folder,
            env=env,
            greeting=b"AMQP\x00\x00\x09\x01",
        )
        with _running(server):
            yield server
    finally:
        mapper.kill()
        mapper.wait(60)


@contextmanager
def _running(server: Server) -> Iterator[None]:
    server.start()
    try:
        yield
    finally:
        server.stop()


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}, which is not in the PATH")
    return found


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])
