"""Ten thousand emissions at a time, each with its own context variable (A4, B1).

Fifty tasks of one loop and eight threads emit the same event, to handlers that
run inline, in tasks, in background threads and on the background loop. The full
count runs under `-m soak`.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections import Counter
from typing import Any

import pytest

from madcrow_events import Emission, EventDispatcher, QueueFullError, SignalRegistry, current_event

EMISSIONS = 10_000
TASKS = 50
THREADS = 8
ROOMS = ("inline", "async", "suspending", "background", "background async")

pytestmark = [
    pytest.mark.soak,
    pytest.mark.guarantee("A4"),
    pytest.mark.usefixtures("threads_switch_often"),
]

mine: contextvars.ContextVar[int] = contextvars.ContextVar("mine")
noted: contextvars.ContextVar[int] = contextvars.ContextVar("noted")


class Story:
    """The handlers, and what each of them saw."""

    def __init__(self, signals: SignalRegistry) -> None:
        self.signal = signals.signal("thing_happened")
        self.calls: list[tuple[str, int]] = []
        self.wrong: list[str] = []
        self.refused: list[int] = []
        self.signal.subscribe(self.inline)
        self.signal.subscribe(self.suspending, weak=False)
        self.signal.subscribe(self.at_once, weak=False, priority=1)
        self.signal.subscribe(self.in_background, weak=False, background=True)
        self.signal.subscribe(self.in_background_loop, weak=False, background=True, timeout=60)

    def look(self, room: str, number: int) -> None:
        """Compare the variables of this context with what the emission carries."""
        emission = current_event()
        if emission is None or emission.context["number"] != number:
            self.wrong.append(f"{room}: another emission is the current one")
        if mine.get(None) != number:
            self.wrong.append(f"{room} {number}: saw {mine.get(None)}")

    def inline(self, sender: Any, **context: Any) -> None:
        self.look("inline", context["number"])
        noted.set(context["number"])  # for the emitter and the handlers after this one
        self.calls.append(("inline", context["number"]))

    async def at_once(self, number: int) -> None:
        self.look("async", number)
        self.spoil(number)
        self.calls.append(("async", number))

    async def suspending(self, emission: Emission[Any]) -> None:
        number = emission.context["number"]
        for _ in range(number % 3 + 1):
            self.look("suspending", number)
            await asyncio.sleep(0)
        self.look("suspending", number)
        self.spoil(number)
        await asyncio.sleep(0)
        self.calls.append(("suspending", number))

    def in_background(self, sender: Any, **context: Any) -> None:
        self.look("background", context["number"])
        self.spoil(context["number"])
        self.calls.append(("background", context["number"]))

    async def in_background_loop(self, number: int) -> None:
        self.look("background async", number)
        await asyncio.sleep(0)
        self.look("background async", number)
        self.spoil(number)
        self.calls.append(("background async", number))

    def spoil(self, number: int) -> None:
        """Change the variables, where nobody else may notice."""
        if noted.get(None) != number:
            self.wrong.append(f"{number}: the inline handler's change did not arrive")
        mine.set(-1)
        noted.set(-1)

    def check_emitter(self, number: int) -> None:
        """Look at the emitter's own variables after an emission."""
        if mine.get() != number:
            self.wrong.append(f"the emitter of {number}: {mine.get()}")
        if noted.get(None) != number:
            self.wrong.append(f"the emitter of {number}: an inline handler had another context")
        if current_event() is not None:
            self.wrong.append(f"the emitter of {number}: an emission is left current")

    async def emit_in_tasks(self, dispatcher: EventDispatcher, numbers: list[int]) -> None:
        """Let each of the tasks emit its share, awaiting every other emission."""

        async def emit(share: list[int]) -> None:
            for number in share:
                mine.set(number)
                if number % 2:
                    await self.emit_later(dispatcher, number)
                else:
                    emission = await dispatcher.emit_async(self.signal, number=number)
                    if not emission.ok:
                        self.wrong.append(repr(emission.failures))
                self.check_emitter(number)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for task in range(TASKS):
                group.create_task(emit(numbers[task::TASKS]))

    async def emit_later(self, dispatcher: EventDispatcher, number: int) -> None:
        """Emit without awaiting; where the queue is full, and so nobody was called, await."""
        try:
            dispatcher.emit(self.signal, number=number)
        except QueueFullError:
            self.refused.append(number)
            if noted.get(None) == number:
                self.wrong.append(f"{number}: refused, but a handler was called")
            await dispatcher.emit_async(self.signal, number=number)

    def emit_in_thread(self, dispatcher: EventDispatcher, share: list[int]) -> None:
        """Emit from a thread without a loop, which waits where the queue is full."""
        for number in share:
            mine.set(number)
            dispatcher.emit(self.signal, number=number)
            self.check_emitter(number)


@pytest.mark.parametrize("queue_size", [20, 1_000_000])
def test_no_handler_sees_the_variables_of_another_emission(
    signals: SignalRegistry, scale: float, queue_size: int
) -> None:
    story = Story(signals)
    numbers = list(range(int(EMISSIONS * scale)))
    in_tasks, in_threads = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
    errors: list[BaseException] = []

    def thread(share: list[int]) -> None:
        try:
            story.emit_in_thread(dispatcher, share)
        except BaseException as error:
            errors.append(error)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, problem: errors.append(Exception(str(problem))))
        await story.emit_in_tasks(dispatcher, in_tasks)
        assert await dispatcher.drain_async(timeout=120)

    started = time.monotonic()
    with EventDispatcher(signals, queue_size=queue_size) as dispatcher:
        threads = [
            threading.Thread(target=thread, args=(in_threads[number::THREADS],))
            for number in range(THREADS)
        ]
        for one in threads:
            one.start()
        asyncio.run(main())
        for one in threads:
            one.join()
        assert dispatcher.drain(timeout=120)
    assert errors == []
    assert story.wrong == []
    counts = Counter(story.calls)
    assert set(counts.values()) == {1}
    assert len(counts) == len(ROOMS) * len(numbers)
    assert dispatcher.dropped == 0
    assert queue_size == 20 or not story.refused
    assert time.monotonic() - started < 300
