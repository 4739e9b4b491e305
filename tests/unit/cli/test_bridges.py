"""The command with bridges: `worker` lets them send and take in, and `schema` describes them."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command import Command, command

pytest.importorskip("sqlalchemy")

import madcrow_events.bridge  # noqa: F401  # once SQLAlchemy is known to be there
from madcrow_events.cli._application import bridge_in

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
        end()


    def end():
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
    engine.dispose()
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


def test_a_worker_that_works_once_takes_in_what_has_come(services: Command):
    """Before it ends."""
    source = services.folder.joinpath("shipping.py").read_text(encoding="utf-8")
    services.write(once=source.replace("os.kill(os.getpid(), signal.SIGTERM)", "pass"))
    ended = services("worker", "--once", app="once")
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


@pytest.mark.parametrize("app", ["shipping:bridge", "mailing:bridge"])
def test_schema_writes_the_document_of_a_bridge(services: Command, app: str):
    """It has what the service takes in, and that is said to nobody else."""
    ended = services("schema", "--format", "asyncapi", app=app)
    assert (ended.status, ended.err) == (0, "")
    assert [*ended.record["operations"]] == ["receive_order_placed"]
    assert ended.record["channels"]["order_placed"]["address"] == "madcrow_events"


def test_schema_writes_the_catalogue_of_a_module_with_a_bridge(services: Command):
    """A bridge is described where it is named."""
    document = services("schema", "--format", "asyncapi", app="mailing:signals").record
    assert [*document["operations"]] == ["send_order_placed", "receive_order_placed"]
    assert "user_logged_in" in services("schema", "--format", "asyncapi", app="mailing").out


def test_schema_writes_the_whole_document_of_a_bridge_or_none(services: Command):
    ended = services("schema", "order_*", "--format", "asyncapi", app="mailing:bridge")
    assert ended.status == 2
    assert "leave out 'order_*', or name the module alone" in ended.err


def test_the_events_of_a_bridge_are_those_of_its_registry(services: Command):
    """Its bridge stands for a service, as a dispatcher does."""
    assert [it["event"] for it in services("events", "--json", app="mailing:bridge").record] == [
        "order_placed"
    ]
    (shown,) = services("schema", app="mailing:bridge").record["properties"]
    assert shown == "order_placed"


def test_the_outbox_of_a_bridge_is_found(services: Command):
    """Where the module has nothing else."""
    services.write(carrier="from shipping import bridge")
    ended = services("outbox", "ddl", "--dialect", "sqlite", app="carrier:bridge")
    assert ended.status == 0


def test_nothing_is_a_bridge_where_none_is_loaded(monkeypatch: pytest.MonkeyPatch):
    """So that looking for one needs no SQLAlchemy."""
    monkeypatch.delitem(sys.modules, "madcrow_events.bridge")
    assert bridge_in(object()) is None
