"""The subcommand `worker` with bridges: it sends, takes in, and receives without a database."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command import Command, command

pytest.importorskip("sqlalchemy")

__all__ = ["command"]

SERVICES = """
    import os
    import signal

    from sqlalchemy import create_engine

    from madcrow_events import BaseEventContext, SignalRegistry
    from madcrow_events.bridge import MemoryBridge, MemoryBroker
    from madcrow_events.outbox import Outbox, Worker


    class OrderPlaced(BaseEventContext):
        order_id: int


    def registry():
        signals = SignalRegistry()
        signals.signal("order_placed", context=OrderPlaced)
        return signals


    def say(context: OrderPlaced) -> None:
        print("shipped", context.order_id, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)


    broker = MemoryBroker()
    event = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order_placed"}
    headers = {f"ce-{name}": value for name, value in event.items()}
"""

SHIPPING = f"""
{SERVICES}
    outbox = Outbox("/shipping", signals=registry())
    outbox.on("order_placed", id="ship")(say)
    bridge = MemoryBridge(outbox, broker, consumer="shipping")
    bridge.incoming("order_placed")
    engine = create_engine("sqlite:///FOLDER/shipping.db")
    outbox.metadata.create_all(engine)
    worker = Worker(outbox, engine, poll=0.05)
    broker.publish("madcrow_events", headers, b'{{"order_id": 7}}')
"""

MAILING = f"""
{SERVICES}
    signals = registry()
    signals.subscribe("order_placed", say)
    bridge = MemoryBridge(signals, broker, consumer="mailing", inbox=None)
    bridge.incoming("order_placed")
    broker.publish("madcrow_events", headers, b'{{"order_id": 8}}')
"""


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """What the command does to the log is undone, and connections are closed."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], level = before
    root.setLevel(level)
    gc.collect()


@pytest.fixture
def services(command: Command, tmp_path: Path) -> Command:
    shipping = SHIPPING.replace("FOLDER", str(tmp_path))
    early = shipping.replace('outbox.on("order_placed", id="ship")(say)', "")
    return command.write(shipping=shipping, early=early, mailing=MAILING)


@pytest.mark.parametrize("app", ["shipping", "shipping:worker", "shipping:bridge"])
def test_the_worker_takes_in_what_its_handlers_are_called_for(services: Command, app: str):
    """Whatever of the three the application has, and the command is told."""
    ended = services("worker", app=app)
    assert (ended.status, ended.out) == (0, "shipped 7\n")


@pytest.mark.parametrize("app", ["mailing", "mailing:bridge"])
def test_a_bridge_without_a_database_runs_by_the_same_command(services: Command, app: str):
    """Until a signal comes, as a worker does."""
    ended = services("worker", app=app)
    assert (ended.status, ended.out) == (0, "shipped 8\n")


@pytest.mark.parametrize(
    "options", [("--once",), ("--handlers", "x*"), ("--concurrency", "2"), ("--database", "x")]
)
def test_options_of_handlers_are_refused_without_an_outbox(services: Command, options):
    """They would do nothing."""
    ended = services("worker", *options, app="mailing")
    assert ended.status == 2
    assert f"{options[0]} is for the durable handlers of an outbox" in ended.err


def test_a_worker_without_handlers_takes_in_for_those_to_come(services: Command):
    """What comes in waits until a handler is declared."""
    assert services("worker", "--once", app="early").status == 0
