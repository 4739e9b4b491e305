"""The shop and shipping as they are run, with a NATS server between them, and some are killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.brokers import a_nats_server

NEEDED = ("faststream", "nats", "two_services", "uvicorn")
missing = [name for name in NEEDED if find_spec(name) is None]
if missing:
    pytest.skip(f"not installed: {', '.join(missing)}", allow_module_level=True)

pytestmark = pytest.mark.once

TEA = {"customer": "Ada", "item": "tea", "cents": 450, "address": "1 Mill Lane"}
STARTS_WITHIN = 30  # seconds, on a busy machine
SHIPPED_WITHIN = 60  # seconds; the leases of a process that was killed end after 30
ENDS_WITHIN = 15  # seconds


def eventually(ask: Callable[[], Any], seconds: float) -> Any:
    """Ask again until the answer is true, and return it."""
    ends = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < ends
        time.sleep(0.05)
    return answer


class Service:
    """A service as its command runs it, which can be killed and started again.

    Args:
        arguments: those of `python -m`.
        environment: the variables of the services.
        output: the file for what it has to say.
    """

    def __init__(self, arguments: list[str], environment: dict[str, str], output: Path) -> None:
        self._command = [sys.executable, "-m", *arguments]
        self._environment = {**os.environ, **environment}
        self._output = output

    def start(self) -> None:
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=output, stderr=subprocess.STDOUT
            )

    def end(self, how: signal.Signals) -> int:
        """End it, and return its status."""
        self._process.send_signal(how)
        return self._process.wait(ENDS_WITHIN)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def ask(self, *options: str) -> list[str]:
        """Return the lines that its command prints with other options."""
        done = subprocess.run(
            [*self._command, *options], env=self._environment, check=True, capture_output=True
        )
        return done.stdout.decode().splitlines()


class Services:
    """Both services, and NATS."""

    def __init__(self, nats: Any, folder: Path) -> None:
        self.nats = nats
        self.output = folder / "output.txt"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {"NATS_URL": nats.url, "TWO_SERVICES_FOLDER": str(folder)}
        shop = ["two_services.shop", "--port", str(port)]
        self.shop = Service(shop, environment, self.output)
        self.shipping = Service(["two_services.shipping"], environment, self.output)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False)

    def is_open(self) -> bool:
        try:
            return self.client.get("/openapi.json").is_success
        except httpx.TransportError:
            return False

    def place(self, count: int) -> None:
        for _ in range(count):
            assert self.client.post("/orders", json=TEA).status_code == 201

    def is_shipped(self, order: int) -> bool:
        return bool(self.client.get(f"/orders/{order}").json()["state"] == "shipped")

    def are_shipped(self, count: int) -> bool:
        return all(self.is_shipped(order) for order in range(1, count + 1))


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with ExitStack() as ends, a_nats_server(tmp_path) as nats:
        services = Services(nats, tmp_path)
        ends.callback(services.client.close)
        for service in (services.shop, services.shipping):
            service.start()
            ends.callback(service.close)
        eventually(services.is_open, STARTS_WITHIN)
        yield services


def test_each_order_is_shipped_once_though_shipping_and_nats_are_killed(services: Services) -> None:
    """Each of them in the middle of its work; the shop takes orders all the time."""
    services.place(1)
    eventually(lambda: services.are_shipped(1), SHIPPED_WITHIN)
    services.place(40)
    services.shipping.end(signal.SIGKILL)
    services.place(5)
    assert not services.is_shipped(46)
    services.shipping.start()
    services.place(20)
    services.nats.restart()
    services.place(5)
    eventually(lambda: services.are_shipped(71), SHIPPED_WITHIN)
    shipped = [int(it.split()[3].strip(",")) for it in services.shipping.ask("--list")]
    assert sorted(shipped) == [*range(1, 72)]
    assert services.shipping.end(signal.SIGTERM) == 0
    services.shop.end(signal.SIGTERM)
    told = services.output.read_text()
    assert "Traceback" not in told
    assert "dead" not in told
