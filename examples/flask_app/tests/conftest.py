"""What the tests share: an application with a registry of its own, and what it has emitted."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask_app.events import Events

from madcrow_events import Emission, emit_event, madcrow_signals, on_event


@pytest.fixture(autouse=True)
def _isolated() -> Iterator[None]:
    with madcrow_signals.isolated(empty=True):
        madcrow_signals.signal("order_placed")
        yield


class Heard(list[Emission]):
    """The emissions of `order_placed` that went out."""

    def numbers(self) -> list[Any]:
        return [emission.context["number"] for emission in self]


@pytest.fixture
def heard() -> Heard:
    """Return what a handler of `order_placed` is called with."""
    emissions = Heard()

    @on_event("order_placed")
    def hear(emission: Emission) -> None:
        emissions.append(emission)

    return emissions


@pytest.fixture
def make_app() -> Any:
    """Return what makes applications that emit `order_placed`, number 1, in every request."""

    def make(**options: Any) -> Flask:
        app = Flask("shop")
        Events(app, **options)
        app.before_request(lambda: emit_event("order_placed", number=1) and None)
        app.get("/", endpoint="home")(lambda: "done")
        return app

    return make
