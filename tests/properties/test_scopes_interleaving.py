"""Ten thousand emissions, each in a scope of its own, many at a time (B5).

Fifty tasks of one loop and eight threads emit typed and loose events, whose handlers run inline,
in tasks, in background threads and on the background loop, and emit again. The full count runs
under `-m soak`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    Emission,
    EventDispatcher,
    GenericEventContext,
    SignalRegistry,
    event_scope,
)

EMISSIONS = 10_000
TASKS = 50
THREADS = 8
NAMES = ("request_id", "user_agent", "ip_address")
ROOMS = ("inline", "async", "suspending", "background", "background async")
LIMIT = 240  # seconds

pytestmark = [
    pytest.mark.soak,
    pytest.mark.guarantee("B5"),
    pytest.mark.usefixtures("threads_switch_often"),
]


class Happened(BaseEventContext):
    number: int


def fields_of(number: int) -> dict[str, Any]:
    """Return what the scope of a number fills in; each leaves out some of the fields."""
    return {name: str(number) for place, name in enumerate(NAMES) if number % 8 >> place & 1}


class Story:
    """The handlers, and what each of them saw."""

    def __init__(self, signals: SignalRegistry, dispatcher: EventDispatcher) -> None:
        self.dispatcher = dispatcher
        self.signal = signals.signal("thing_happened", context=Happened)
        self.inner = signals.signal("inner_thing")
        self.calls: list[tuple[str, int]] = []
        self.wrong: list[str] = []
        self.inner.subscribe(self.hear)
        self.signal.subscribe(self.inline)
        self.signal.subscribe(self.at_once, weak=False, priority=1)
        self.signal.subscribe(self.suspending, weak=False)
        self.signal.subscribe(self.in_background, weak=False, background=True)
        self.signal.subscribe(self.in_background_loop, weak=False, background=True)

    def look(self, room: str, number: int, seen: dict[str, Any]) -> None:
        """Compare what an emission carries with what its own scope fills in."""
        expected = fields_of(number)
        for name in NAMES:
            if seen.get(name) != expected.get(name):
                self.wrong.append(f"{room} of {number}: {name} is {seen.get(name)}")

    def hear(self, sender: Any, **context: Any) -> None:
        self.look(f"what {context['room']} emits", context["number"], context)
        self.calls.append((context["room"], context["number"]))

    def emit_again(self, room: str, number: int) -> None:
        """Emit in the handler's own surroundings, and once in a scope inside of them."""
        with event_scope(request_id="inner", user_agent="inner", ip_address="inner"):
            inner = self.dispatcher.emit("inner_thing", number=-1, room="the inner scope")
        if {inner.context[name] for name in NAMES} != {"inner"}:
            self.wrong.append(f"{room} of {number}: a field of its own scope is another's")
        self.dispatcher.emit("inner_thing", number=number, room=room)

    def inline(self, sender: Any, **context: Any) -> None:
        self.look("inline", context["number"], context)
        self.emit_again("inline", context["number"])

    async def at_once(self, context: Happened) -> None:
        self.look("async", context.number, dict(context))
        self.emit_again("async", context.number)

    async def suspending(self, emission: Emission[Happened]) -> None:
        number = emission.context.number
        for _ in range(number % 3 + 1):
            await asyncio.sleep(0)
        self.look("suspending", number, dict(emission.context))
        self.emit_again("suspending", number)

    def in_background(self, number: int, request_id: Any, user_agent: Any, ip_address: Any) -> None:
        seen = dict(zip(NAMES, (request_id, user_agent, ip_address), strict=True))
        self.look("background", number, seen)
        self.emit_again("background", number)

    async def in_background_loop(self, context: Happened) -> None:
        await asyncio.sleep(0)
        self.look("background async", context.number, dict(context))
        self.emit_again("background async", context.number)

    def typed(self, number: int) -> BaseEventContext:
        if number % 2:
            return Happened(number=number)
        return GenericEventContext(event_type="thing_happened", data={"number": number})

    async def emit_in_a_task(self, numbers: list[int]) -> None:
        for number in numbers:
            with event_scope(**fields_of(number)):
                await asyncio.sleep(0)
                if number % 3:
                    emission = await self.dispatcher.emit_typed_async(
                        self.signal, self.typed(number)
                    )
                else:
                    given = dict.fromkeys(NAMES)
                    emission = await self.dispatcher.emit_async(
                        self.signal, **{**given, **fields_of(number)}, number=number
                    )
                if not emission.ok:
                    self.wrong.append(repr(emission.failures))

    def emit_in_a_thread(self, numbers: list[int]) -> None:
        for number in numbers:
            with event_scope(**dict.fromkeys(NAMES, "outer")):
                cleared: dict[str, Any] = {**dict.fromkeys(NAMES), **fields_of(number)}
                with event_scope(**cleared):
                    self.dispatcher.emit_typed(self.signal, self.typed(number))


def test_no_field_of_anothers_scope_arrives_anywhere(signals: SignalRegistry, scale: float) -> None:
    """10,000 emissions, and 100,000 by their handlers, each with the fields of its own scope."""
    numbers = list(range(int(EMISSIONS * scale)))
    half = len(numbers) // 2
    in_tasks, in_threads = numbers[:half], numbers[half:]
    started = time.monotonic()

    async def main(story: Story) -> None:
        async with asyncio.TaskGroup() as group:
            for task in range(TASKS):
                group.create_task(story.emit_in_a_task(in_tasks[task::TASKS]))

    with EventDispatcher(signals, queue_size=200) as dispatcher:
        story = Story(signals, dispatcher)
        threads = [
            threading.Thread(target=story.emit_in_a_thread, args=(in_threads[number::THREADS],))
            for number in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        asyncio.run(main(story))
        for thread in threads:
            thread.join()
        assert dispatcher.drain(LIMIT)
        bare = dispatcher.emit("inner_thing", number=0, room="nowhere")
    assert dict(bare.context) == {"number": 0, "room": "nowhere"}
    wrong = [line for line in story.wrong if not line.startswith("what the inner scope emits")]
    assert wrong == []
    counts = Counter(call for call in story.calls if call[0] in ROOMS)
    assert set(counts.values()) == {1}
    assert len(counts) == len(ROOMS) * len(numbers)
    print(f"{len(numbers)} emissions, {len(story.calls)} by their handlers, ", end="")
    print(f"{time.monotonic() - started:.1f} s")
