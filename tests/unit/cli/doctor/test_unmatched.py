"""Patterns, classes and optional handlers that match no event."""

from __future__ import annotations

import pytest

EVENT = """
@signals.event
class OrderPlaced(BaseEventContext):
    order_id: int
register_handler(OrderPlaced, print)
"""


WAITING = """
class Forgotten(BaseEventContext): ...

@on_event("ordr_*")
def by_pattern(): ...

@on_event(Forgotten)
def by_class(): ...

group = HandlerGroup("shop")

@group.on("shop_opened", optional=True)
def optional(): ...

@group.on("order_placed", optional=True)
@group.on("*")
@group.on(OrderPlaced)
def fit(): ...
"""


@pytest.mark.parametrize("register", ["", "group.register()"])
def test_what_matches_no_event_is_found(examine_app, register):
    """A pattern, a class and an optional handler, in a group that may be registered later, too."""
    examined = examine_app(f"{EVENT}{WAITING}\n{register}")
    assert examined.subjects("unmatched_pattern") == ["ordr_*"]
    assert examined.lines("unmatched_pattern") == ['@on_event("ordr_*")']
    assert examined.subjects("unmatched_class") == ["app.Forgotten"]
    assert examined.lines("unmatched_class") == ["@on_event(Forgotten)"]
    assert "shop_opened" in examined.subjects("unmatched_optional")
    assert '@group.on("shop_opened", optional=True)' in examined.lines("unmatched_optional")
    assert not examined.kinds - {"unmatched_pattern", "unmatched_class", "unmatched_optional"}


def test_an_optional_handler_that_does_not_fit_its_event_is_found(examine_app, caplog):
    """It is not subscribed, so it waits in vain, too."""
    examined = examine_app(
        f"""
group = HandlerGroup("shop")
@group.on("order_placed", optional=True)
def unfit(colour): ...
group.register()
{EVENT}"""
    )
    (found,) = examined.record["findings"]
    assert found["kind"] == "unmatched_optional"
    assert found["message"].endswith(".unfit is optional, and does not fit its event order_placed")
    assert "optional handler is not subscribed" in caplog.text


def test_events_that_are_declared_later_count(examine_app):
    """By a group that is not registered yet, or in a function that was not called."""
    examined = examine_app(
        """
        class Opened(BaseEventContext): ...
        class Closed(BaseEventContext): ...
        group = HandlerGroup("shop")
        group.signal("shop_opened", context=Opened)
        def start(own):
            own.signal("street_closed", context=Closed)
        for it in ("shop_*", "street_*", Opened, Closed):
            signals.subscribe(it, print)
        """
    )
    assert examined.record["findings"] == []


def test_the_registry_of_the_application_is_examined(examine_app):
    """If it is given; else the default one, which has no events of the application here."""
    source = "own = SignalRegistry()\nown.signal('order_placed')"
    assert examine_app(source, ":own").subjects("unhandled_event") == ["order_placed"]
    assert examine_app(source).record["events"] == 0
