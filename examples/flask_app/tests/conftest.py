"""What the tests share: an application with a registry of its own, and what it has emitted."""

from collections.abc import Iterator
from typing import Any

import flask
import pytest
from flask import Flask
from flask_app.events import Events
from flask_app.flask_extras import init_extras

from madcrow_events import Emission, emit_event, get_event_dispatcher, madcrow_signals, on_event


@pytest.fixture(autouse=True)
def _isolated() -> Iterator[None]:
    """After each test, its handlers are gone, and no context of Flask is left in the thread."""
    with madcrow_signals.isolated(empty=True):
        madcrow_signals.signal("order_placed")
        yield
        assert get_event_dispatcher().drain(5)
    assert not flask.has_app_context()
    assert not flask.has_request_context()


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
def app() -> Flask:
    """Return an application that emits `order_placed`, number 1, in every request."""
    app = Flask("shop")
    Events(app)
    init_extras(app)
    app.before_request(lambda: emit_event("order_placed", number=1) and None)
    app.get("/")(lambda: "done")
    return app
