"""Fields that a scope fills in, and ways to emit inside of it."""

from __future__ import annotations

import asyncio
from typing import Any

from madcrow_events import BaseEventContext, Emission, EventDispatcher, GenericEventContext
from madcrow_events.emissions._contexts import keywords_of

NAMES = ("request_id", "user_agent", "ip_address")
FIELDS = {name: f"the scope's {name}" for name in NAMES}
NOTHING: dict[str, Any] = dict.fromkeys(NAMES)


class Placed(BaseEventContext):
    number: int = 0


class WithRequired(BaseEventContext):
    request_id: str  # type: ignore[assignment]  # narrower


def fields_of(emission: Emission[Any]) -> dict[str, Any]:
    """Return what an emission carries of the fields that a scope may fill in."""
    keywords = keywords_of(emission)
    return {name: keywords.get(name) for name in NAMES}


def loose(dispatcher: EventDispatcher, **given: Any) -> Emission[Any]:
    return dispatcher.emit("order_placed", **given)


def typed(dispatcher: EventDispatcher, **given: Any) -> Emission[Any]:
    return dispatcher.emit_typed("order_placed", Placed(**given))


def generic(dispatcher: EventDispatcher, **given: Any) -> Emission[Any]:
    return dispatcher.emit_typed(
        "order_placed", GenericEventContext(event_type="order_placed", data={"number": 1}, **given)
    )


def loose_async(dispatcher: EventDispatcher, **given: Any) -> Emission[Any]:
    return asyncio.run(dispatcher.emit_async("order_placed", **given))


def typed_async(dispatcher: EventDispatcher, **given: Any) -> Emission[Any]:
    return asyncio.run(dispatcher.emit_typed_async("order_placed", Placed(**given)))
