"""Waiting for what happens elsewhere, without a lock."""

from __future__ import annotations

import asyncio
import threading

import pytest

from madcrow_events.exceptions import EventLoopError
from support.inside import Waiters


def answers(*notified: bool) -> object:
    left = list(notified)
    return lambda: left.pop(0)


def test_who_begins_to_wait_looks_once_more_before_it_sleeps() -> None:
    assert Waiters().wait(answers(False, True), None)
    assert asyncio.run(Waiters().wait_async(answers(False, True), None))
    assert asyncio.run(Waiters().wait_async(answers(False, False, True), None))


def test_nobody_waits_longer_than_asked() -> None:
    assert not Waiters().wait(lambda: False, 0.01)
    assert not asyncio.run(Waiters().wait_async(lambda: False, 0.01))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_as_many_as_are_notified_look_again_the_first_first(number: int) -> None:
    def wait(name: int) -> None:
        waiters.wait(lambda: name in notified or (began.append(name), False)[1], 10)
        woken.append(name)

    waiters = Waiters()
    began: list[int] = []
    notified: set[int] = set()
    woken: list[int] = []
    threads = []
    for name in range(3):
        threads.append(threading.Thread(target=wait, args=(name,)))
        threads[-1].start()
        while began.count(name) < 2 or len(waiters._callbacks) <= name:
            pass
    notified.update(range(number))
    waiters.notify(number)
    for thread in threads[:number]:
        thread.join(10)
    assert sorted(woken) == list(range(number))
    notified.update(range(3))
    waiters.notify()
    for thread in threads:
        thread.join(10)
    assert sorted(woken) == [0, 1, 2]


async def test_a_task_that_is_notified_twice_goes_on_once() -> None:
    async def wait() -> bool:
        return await waiters.wait_async(lambda: so, 10)

    waiters = Waiters()
    so: list[bool] = []
    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    (callback,) = waiters._callbacks
    so.append(True)
    callback()
    callback()
    assert await waiting


def test_notifying_a_task_whose_loop_is_closed_is_no_error() -> None:
    async def wait() -> None:
        task = asyncio.create_task(waiters.wait_async(lambda: False, None))
        await asyncio.sleep(0)
        callbacks.extend(waiters._callbacks)
        task.cancel()

    waiters = Waiters()
    callbacks: list[object] = []
    asyncio.run(wait())
    waiters._callbacks.extend(callbacks)  # type: ignore[arg-type]
    waiters.notify()
    assert waiters._callbacks == []


def test_nobody_waits_in_a_coroutine_that_no_loop_runs() -> None:
    waiting = Waiters().wait_async(lambda: False, 1)
    with pytest.raises(EventLoopError, match="no event loop runs"):
        waiting.send(None)
