"""A program that is interrupted by a timer's signals, and prints what it has found as JSON.

Its arguments: what is raised, how many times, and the seed of the moments. In a process of its
own, for what signals raise must not reach the tools that run the tests.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import logging
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.shops import ALL, HEARD, LIMIT, Shop, Way

HANDFUL = 25

NOT_OURS = (
    "asyncio",
    "concurrent",
    "logging",
    "selectors.py",
    "threading.py",
    "weakref",
)
"""Of the standard library, what leaves its own locks held or its loop broken if interrupted."""

SWALLOWING = ("annotationlib.py", "reprlib.py", "traceback.py")
"""What makes the best of whatever is raised as it looks at an object."""

LIBRARY = str(Path(logging.__file__).parents[1])


class TimeLimit(Exception):
    """As what task queues raise when a job takes too long."""


class Interrupter:
    """Uses shops in all ways, and interrupts that at random moments."""

    def __init__(self, error: type[BaseException], seed: int) -> None:
        self.error = error
        self.random = random.Random(seed)  # noqa: S311  # no secret
        self.armed = False
        self.pause = 0.0
        self.raised: BaseException | None = None
        self.hits = 0
        self.told_by_type = 0
        self.hit_in: Counter[str] = Counter()
        self.swallowed: list[str] = []
        self.unraisable: set[int] = set()
        self.logged: set[int] = set()
        self.keep: list[BaseException] = []
        self.longest: dict[Way, float] = {}
        signal.signal(signal.SIGALRM, self.interrupt)
        sys.unraisablehook = lambda unraisable: self.unraisable.add(id(unraisable.exc_value))

    def interrupt(self, _number: int, frame: Any) -> None:
        if not self.armed:
            return
        while frame.f_code is Interrupter.interrupt.__code__:
            frame = frame.f_back  # what was interrupted first
        if is_not_ours(frame):
            self.pause *= 1.5  # again, but not so often that nothing else runs
            signal.setitimer(signal.ITIMER_REAL, self.pause)
            return
        self.armed = False
        self.hits += 1
        self.raised = self.error(f"interrupt {self.hits}")
        self.keep.append(self.raised)
        raise self.raised

    def note(self, message: str) -> None:
        """Count what is told by its type only."""
        self.told_by_type += "was interrupted by TimeLimit" in message

    def run(self, way: Way, shop: Shop, number: int) -> bool:
        """Return whether it was interrupted, and wherever that came up is no matter here."""
        longest = self.longest.get(way)
        delay = 0.0 if longest is None else self.random.uniform(2e-6, 1.1 * longest)
        self.raised = reached = None
        self.pause = 5e-6
        began = time.perf_counter()
        try:
            self.armed = bool(delay)
            signal.setitimer(signal.ITIMER_REAL, delay)
            way(shop, number)
            self.armed = False
        except BaseException as error:
            self.armed = False
            reached = error
        signal.setitimer(signal.ITIMER_REAL, 0)
        shop.close_loops()
        if self.raised is None:
            if reached is not None:
                raise reached
            took = time.perf_counter() - began
            self.longest[way] = took if longest is None else 0.9 * longest + 0.1 * took
            return False
        self.where = "".join(traceback.format_tb(self.raised.__traceback__)[-6:])
        self.reached = {id(error) for error in all_in(reached)}
        # A frame of a traceback holds the block that was cut off, which is alive as long as that.
        for error in (self.raised, *all_in(reached)):
            error.__traceback__ = None
        self.hit_in[way.__name__] += 1
        return True

    def handful(self, shop: Shop) -> None:
        """Interrupt one shop some times; then all must be well with it."""
        returned: dict[int, tuple[Way, bool]] = {}
        interrupts = []
        number = 0
        left = HANDFUL
        while left:
            way = self.random.choice(ALL)
            number += 1
            hit = self.run(way, shop, number)
            returned[number] = way, not hit
            if hit:
                left -= 1
                interrupts.append((id(self.raised), self.reached, f"{way.__name__}\n{self.where}"))
        assert shop.dispatcher.drain(LIMIT), "something is pending for ever"
        for number, (way, is_whole) in returned.items():
            try:
                shop.assert_accounted_for(number, returned=is_whole and way in HEARD)
            except AssertionError as error:
                raise AssertionError(f"{way.__name__}, whole: {is_whole}: {error}") from None
        told = shop.told() | self.unraisable | self.logged
        silent = [where for error, reached, where in interrupts if error not in told | reached]
        if len(silent) > self.told_by_type:
            self.swallowed += silent
        self.told_by_type = 0
        gc.collect()  # blocks that were cut off, as what they hold back or mute ends with them
        try:
            shop.assert_all_is_well(100)
        except AssertionError as error:
            raise AssertionError(
                "after".join([f"{error}\n", *(it[2] for it in interrupts)])
            ) from error


def is_not_ours(frame: Any) -> bool:
    """Tell whether the standard library would be interrupted in what it cannot mend."""
    is_called_by_us = False
    while frame is not None:
        name = frame.f_code.co_filename
        is_called_by_us |= not name.startswith(LIBRARY)
        if name.endswith(SWALLOWING) or (
            not is_called_by_us and any(part in name for part in NOT_OURS)
        ):
            return True
        frame = frame.f_back
    return False


class Keeper(logging.Handler):
    """Keeps which exceptions were logged, without a lock that an interrupt could leave held.

    Args:
        ids: where their ids are put.
        note: called with each message.
    """

    def __init__(self, ids: set[int], note: Callable[[str], object] = str) -> None:
        super().__init__()
        self.ids = ids
        self.note = note

    def handle(self, record: logging.LogRecord) -> bool:
        self.note(record.getMessage())
        if record.exc_info:
            self.ids.update(map(id, all_in(record.exc_info[1])))
        return True


def all_in(error: BaseException | None) -> list[BaseException]:
    """Return an exception, those that it holds, and those that it came after."""
    if error is None:
        return []
    found = [error]
    for part in (*getattr(error, "exceptions", ()), error.__cause__, error.__context__):
        found += all_in(part)
    return found


def main(name: str, count: str, seed: str) -> None:
    error: type[BaseException] = KeyboardInterrupt if name == "KeyboardInterrupt" else TimeLimit
    interrupter = Interrupter(error, int(seed))
    logger = logging.getLogger("madcrow_events")
    logger.propagate = False
    logger.addHandler(Keeper(interrupter.logged, interrupter.note))
    logging.getLogger("asyncio").addHandler(Keeper(interrupter.logged))
    logging.getLogger("asyncio").propagate = False
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logger.isEnabledFor(level)
    problems = []
    began = time.monotonic()
    while interrupter.hits < int(count):
        faulthandler.dump_traceback_later(3 * LIMIT, exit=True)
        shop = Shop()
        try:
            interrupter.handful(shop)
            assert shop.dispatcher.close(LIMIT)
        except BaseException as problem:
            print(problem, file=sys.stderr, flush=True)
            problems.append("".join(traceback.format_exception(problem))[-6000:])
            if len(problems) > 5:
                break
    print(
        json.dumps(
            {
                "hits": interrupter.hits,
                "seed": seed,
                "ways": interrupter.hit_in,
                "problems": problems,
                "swallowed": interrupter.swallowed,
                "seconds": time.monotonic() - began,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
