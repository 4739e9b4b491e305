"""A handler does not see the failure of an earlier one (F1)."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from madcrow_events import BaseEventContext, EventDispatcher, EventSignal, SignalRegistry

pytestmark = pytest.mark.guarantee("F1")


class Happened(BaseEventContext): ...


@pytest.fixture(params=["loose", "typed"])
def emitted(request: pytest.FixtureRequest, signals: SignalRegistry) -> EventSignal[Any]:
    return signals.signal("happened", context=Happened if request.param == "typed" else None)


@pytest.mark.parametrize("options", [{}, {"when": lambda context: True}], ids=["plain", "when"])
@pytest.mark.parametrize("awaits", [False, True], ids=["emit", "emit_async"])
def test_what_an_earlier_handler_raised_is_over(
    emitted: EventSignal[Any], dispatcher: EventDispatcher, options: dict[str, Any], awaits: bool
) -> None:
    seen: list[Any] = []

    def fail(context: BaseEventContext) -> None:
        raise ValueError

    def look(context: BaseEventContext) -> None:
        seen.append(sys.exception())

    def fail_too(context: BaseEventContext) -> None:
        raise KeyError

    for handler in (fail, look, fail_too):
        emitted.subscribe(handler, **options)
    for _ in range(2):  # the second time, the plan is made
        if awaits:
            emission = asyncio.run(dispatcher.emit_typed_async(emitted, Happened()))
        else:
            emission = dispatcher.emit_typed(emitted, Happened())
        assert [type(it.exception) for it in emission.failures] == [ValueError, KeyError]
        assert [it.exception.__context__ for it in emission.failures] == [None, None]
    assert seen == [None, None]
