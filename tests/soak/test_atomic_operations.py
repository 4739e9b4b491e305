"""The operations of Python's own containers that the package uses without a lock.

Each is one step for all other threads, with the GIL and without. Should a Python give that up,
these tests name the operation.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import Any

import pytest

THREADS = 8
ROUNDS = 20_000

pytestmark = [pytest.mark.soak, pytest.mark.usefixtures("threads_switch_often")]


@pytest.fixture
def rounds(scale: float) -> int:
    return int(ROUNDS * scale)


def together(work: Callable[[int], Any]) -> list[Any]:
    """Call a function with the numbers of all threads, in all threads at once."""
    barrier = threading.Barrier(THREADS)

    def begin(thread: int) -> Any:
        barrier.wait()
        return work(thread)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS)))


def test_one_thread_at_a_time_has_what_it_popped_from_a_list(rounds: int) -> None:
    """And it sees all that was done by those who had it before."""
    token = [None]
    entered = 0

    def work(thread: int) -> int:
        nonlocal entered
        won = 0
        for _ in range(rounds):
            with suppress(IndexError):
                token.pop()
                entered += 1  # no single operation, so that it shows if two threads are here
                won += 1
                token.append(None)
        return won

    assert sum(together(work)) == entered
    assert token == [None]


def test_a_list_loses_nothing_that_is_appended_extended_removed_and_popped(rounds: int) -> None:
    turns = THREADS * (rounds // 10)
    places: list[Any] = [None] * turns  # so that nobody pops what another is about to remove

    def work(thread: int) -> None:
        for number in range(rounds // 10):
            mine = (thread, number)
            places.extend([None] * 3)
            places.append(mine)
            places.remove(mine)
            places.pop(0)

    together(work)
    assert places == [None] * (3 * turns)


def test_a_deque_loses_nothing_and_repeats_nothing(rounds: int) -> None:
    waiting: deque[tuple[int, int]] = deque()

    def work(thread: int) -> list[tuple[int, int]]:
        taken = []
        for number in range(rounds):
            waiting.append((thread, number))
            with suppress(IndexError):
                taken.append(waiting.popleft())
        return taken

    taken = [item for items in together(work) for item in items] + list(waiting)
    assert sorted(taken) == [
        (thread, number) for thread in range(THREADS) for number in range(rounds)
    ]


def test_all_threads_find_what_one_of_them_set_by_default(rounds: int) -> None:
    made: dict[int, object] = {}
    winners = together(lambda thread: [made.setdefault(key, object()) for key in range(rounds)])
    assert all(len(set(map(id, found))) == 1 for found in zip(*winners, strict=True))


def test_one_thread_pops_a_key(rounds: int) -> None:
    jobs = dict.fromkeys(range(rounds), "pending")
    popped = together(lambda thread: sum(jobs.pop(key, None) is not None for key in range(rounds)))
    assert sum(popped) == rounds
    assert jobs == {}


def test_the_values_of_a_dict_are_copied_as_of_one_moment(rounds: int) -> None:
    """While other threads add and remove; the copy has all that stays."""
    jobs: dict[Any, int] = {key: key for key in range(-10, 0)}

    def work(thread: int) -> bool:
        complete = True
        for number in range(rounds // 10):
            key = (thread, number)
            jobs[key] = number
            complete = complete and sum(value < 0 for value in list(jobs.values())) == 10
            del jobs[key]
        return complete

    assert all(together(work))
    assert len(jobs) == 10


def test_a_count_gives_no_number_twice(rounds: int) -> None:
    numbers = count()
    got = together(lambda thread: [next(numbers) for _ in range(rounds)])
    assert sorted(number for own in got for number in own) == list(range(THREADS * rounds))
