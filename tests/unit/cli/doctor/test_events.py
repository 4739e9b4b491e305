"""Events that nobody handles."""

from __future__ import annotations

from textwrap import dedent

import pytest

from madcrow_events.cli._doctor import _events

EVENT = """
@signals.event
class OrderPlaced(BaseEventContext):
    order_id: int
"""


def test_an_event_that_nobody_handles_is_found_where_it_is_declared(examine_app):
    """With its place and what to do; built-in events are none, for nobody needs to handle them."""
    examined = examine_app(EVENT)
    (found,) = examined.record["findings"]
    assert found["kind"] == "unhandled_event"
    assert found["subject"] == "order_placed"
    assert found["message"] == "nobody handles order_placed"
    assert "subscribe one" in found["fix"]
    assert examined.lines("unhandled_event") == ["@signals.event"]
    assert (examined.record["events"], examined.record["handlers"]) == (1, 0)


def test_the_place_may_be_that_of_the_model(monkeypatch, examine_app):
    """If it is not known where the event was declared; without a model, there is none."""
    monkeypatch.setattr(_events, "declared_at", lambda signal: None)
    examined = examine_app(f"{EVENT}\nsignals.signal('order_sent')")
    places = {it["subject"]: it["line"] for it in examined.of("unhandled_event")}
    assert places["order_sent"] is None
    assert places["order_placed"] is not None


HANDLED = {
    "by name": "@on_event('order_placed')\ndef handle(): ...",
    "by class": "@on_event(OrderPlaced)\ndef handle(): ...",
    "by a base class": "@on_event(BaseEventContext)\ndef handle(): ...",
    "by pattern": "@on_event('order_*')\ndef handle(): ...",
    "by blinker's connect": "def handle(sender, **c): ...\nsignals['order_placed'].connect(handle)",
    "by a group that is registered later": (
        "group = HandlerGroup('shop')\n@group.on(OrderPlaced)\ndef handle(): ..."
    ),
    "by one of several groups": (
        "groups = {'shop': HandlerGroup('shop')}\n@groups['shop'].on('order_*')\ndef handle(): ..."
    ),
    "by a group of a class": (
        "class Shop:\n    groups = [HandlerGroup('closed')]\n    group = HandlerGroup('shop')\n"
        "    @group.on(OrderPlaced)\n    def handle(): ..."
    ),
    "by a group in a list": (
        "groups = [HandlerGroup('shop')]\n@groups[0].on(OrderPlaced)\ndef handle(): ..."
    ),
    "in a function, by class": ("def wire(registry):\n    registry.subscribe(OrderPlaced, print)"),
    "in a function, by name": "def wire():\n    on_event('order-placed')(print)",
    "in a function, by pattern": "def wire():\n    on_event('order_*')(print)",
    "in a function, by a constant": (
        "NAME = 'order_placed'\ndef wire():\n    register_handler(NAME, print)"
    ),
    "in a function, by the signal": (
        "order = signals[OrderPlaced]\ndef wire():\n    order.connect(print)"
    ),
    "in a function, by a late import": (
        "def wire():\n    from app.others import OrderPlaced as It\n    on_event(It)(print)"
    ),
    "in a function, by a class that it was given": (
        "def wire(OrderPlaced):\n    on_event(OrderPlaced)(print)"
    ),
    "in a function, by a signal that it was given": (
        "def wire(order_placed):\n    order_placed.connect(print)"
    ),
    "in a lambda": "wire = lambda: on_event(OrderPlaced)(print)",
    "in a function, in brackets": "def wire():\n    signals['order_placed'].connect(print)",
    "in a function, by resolve": "def wire():\n    signals.resolve('order_placed').connect(print)",
    "by an alias": "listen = on_event\ndef wire():\n    listen(OrderPlaced)(print)",
    "by a method's alias": "add = signals.subscribe\ndef wire():\n    add(OrderPlaced, print)",
    "by a partial": (
        "from functools import partial\nlisten = partial(on_event, signals=signals)\n"
        "def wire():\n    listen(OrderPlaced)(print)"
    ),
    "in a case": "match 1:\n    case 2:\n        on_event(OrderPlaced)(print)",
    "in an except": "try: 1\nexcept OSError:\n    on_event(OrderPlaced)(print)",
    "in an expression": "on_event(OrderPlaced)(print) if not print else None",
    "in a program": "if __name__ == '__main__':\n    on_event(OrderPlaced)(print)",
    "in an else": "if DEBUG:\n    pass\nelse:\n    on_event(OrderPlaced)(print)".replace(
        "DEBUG", "print"
    ),
    "in a function, by the attribute of a module": (
        "import app.others\ndef wire():\n    on_event(app.others.OrderPlaced)(print)"
    ),
}


@pytest.mark.parametrize("how", HANDLED)
def test_an_event_that_is_handled_is_no_finding(examine_app, how):
    """However it is handled, also by a line that runs only when the application starts."""
    others = "import sys\nfrom app import OrderPlaced"
    examined = examine_app(
        f"{EVENT}\n{HANDLED[how]}\nfrom importlib import import_module\n"
        "import_module(__name__ + '.others')",
        others=others,
    )
    assert examined.record["findings"] == []


GONE = {
    "with its object": (
        "class Mailer:\n    def send(self): ...\nregister_handler('order_placed', Mailer().send)"
    ),
    "because it was cancelled": "signals.subscribe('order_placed', print).cancel()",
    "with all": "@on_event(OrderPlaced)\ndef handle(): ...\nclear_all_handlers()",
}


@pytest.mark.parametrize("how", GONE)
def test_an_event_whose_handlers_have_gone_is_found(examine_app, how):
    """They were subscribed during the import, and nobody is any more; the message says why."""
    (found,) = examine_app(f"{EVENT}\n{GONE[how]}").record["findings"]
    assert found["kind"] == "unhandled_event"
    assert "nobody handles order_placed any more, also not " in found["message"]


def test_what_an_ordinary_call_is_given_handles_nothing(examine_app):
    """Nor does a malformed name, or a name in another language's code."""
    source = f"{EVENT}\ndef act(bus):\n    emit_event('order_placed')\n    bus.on('Order Placed!')"
    assert examine_app(source).kinds == {"unhandled_event"}


OBSERVED = {
    "by a class of the application": """
        class Log:
            def emission(self, emission): ...
            def handling(self, emission, handler): ...
    """,
    "by an object": """
        from unittest.mock import Mock
        get_event_dispatcher().add_observer(Mock())
    """,
    "through another dispatcher": """
        from unittest.mock import Mock
        dispatcher = EventDispatcher()
        dispatcher.add_observer(Mock())
    """,
}


@pytest.mark.parametrize("how", OBSERVED)
def test_what_an_observer_follows_is_listed_apart(examine_app, how):
    """It is no finding, because a log of all events may be what they are for."""
    attribute = ":dispatcher" if "another" in how else ""
    record = examine_app(EVENT + dedent(OBSERVED[how]), attribute).record
    assert record["findings"] == []
    assert record["perhaps_handled"] == ["order_placed"]


def test_an_observer_of_this_package_handles_nothing(examine_app):
    """It counts and times, whatever the event."""
    examined = examine_app(f"{EVENT}\nget_event_dispatcher().add_observer(TimingObserver())")
    assert examined.kinds == {"unhandled_event"}


PERHAPS = {
    "of a table": "for event, handler in TABLE.items():\n        signals.subscribe(event, handler)",
    "of an object": "signals.subscribe(self.event, self.handle)",
    "of a text that is put together": "on_event(f'order_{self}')(print)",
    "of a global that is local here": "name = self\n    signals[name].connect(print)",
    "of a signal that it finds": "signals[self].connect(print)",
    "of a signal that it asks for": "signals.resolve(self).connect(print)",
    "that is given later": "signals.resolve(**self).connect(print)",
    "of a match": "match self:\n        case [name, *_]:\n            on_event(name)(print)",
    "by a keyword": "signals.subscribe(**self)",
    "handed on": "self.run(register_handler, 'order_placed', print)",
    "of a module that is imported then": "from app import others",
    "of another module that is imported then": "import app.others",
    "of a module beside that is imported then": "import app_beside_it",
    "of a module that is named then": "import importlib\n    importlib.import_module(self)",
}


@pytest.mark.parametrize("how", PERHAPS)
def test_an_event_that_a_function_may_handle_is_listed_apart(examine_app, tmp_path, how):
    """Nobody can know what the function subscribes to when it is called."""
    (tmp_path / "app_beside_it.py").write_text("")
    source = f"{EVENT}\nname = 'other'\ndef wire(self):\n    {PERHAPS[how]}"
    record = examine_app(source, others="").record
    assert record["findings"] == []
    assert record["perhaps_handled"] == ["order_placed"]


NOTHING = {
    "another's function": "import sqlite3\ndef act(it):\n    sqlite3.connect(it)",
    "another's function in Python": (
        "from pytest import importorskip as connect\ndef act(it):\n    connect(it)"
    ),
    "without an argument": "def act(it):\n    it.connect()",
    "another's module": "def act():\n    import colorsys\n    from xml import dom",
    "another's module, named": "def act():\n    import nowhere_at_all",
    "beyond the package": "def act():\n    from ....... import it",
}


@pytest.mark.parametrize("how", NOTHING)
def test_what_subscribes_nothing_hides_nothing(examine_app, how):
    """Many functions are called `connect`."""
    assert examine_app(f"{EVENT}\n{NOTHING[how]}").kinds == {"unhandled_event"}


def test_a_durable_handler_may_be_declared_later(examine_app):
    """By a function that the application calls when it starts."""
    pytest.importorskip("sqlalchemy")
    outbox = "from madcrow_events.outbox import Outbox\noutbox = Outbox('/shop')\n"
    wire = "def wire():\n    outbox.on(OrderPlaced, id='mail')(print)"
    assert examine_app(f"{outbox}{EVENT}\n{wire}").record["findings"] == []
