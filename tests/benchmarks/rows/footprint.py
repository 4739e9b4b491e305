"""What memory costs, and an import."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from madcrow_events import SignalRegistry
from madcrow_events.testing import record_events

from ..measuring import OURS, Contender, Effort, Line, once
from ..ours import KEYWORDS, NAME, dispatcher_of, keyword_handler, many
from ..peers import installed

MANY = 2_000
RECORDED = 1_000_000
FIRST = 10_000
PLAIN_IMPORT = """
import blinker, pydantic
class Context(pydantic.BaseModel):
    email: str
"""


class Listener:
    """An object with a method that handles."""

    __slots__ = ("__weakref__",)

    def handle(self, sender: Any, **context: Any) -> None:
        """Do nothing."""


def bytes_of(number: int, prepare: Callable[[int], Any], act: Callable[[Any], Any]) -> Contender:
    """Return what tells how many bytes one of so many takes.

    Args:
        number: how many are made.
        prepare: makes what is there before, and is not counted.
        act: makes what is counted from that, and returns what must be kept.
    """

    def run(_calls: int) -> float:
        prepared = prepare(number)
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            kept = act(prepared)
            gc.collect()
            taken = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        del kept, prepared
        return taken / number

    return run


def connect_all(make: Callable[[], Any], connect: Callable[[Any, Any], object]) -> Any:
    """Return what makes one event, and connects handlers to it."""

    def act(handlers: list[Any]) -> Any:
        event = make()
        for handler in handlers:
            connect(event, handler)
        return event

    return act


def make_all(make: Callable[[], Any], numbers: range) -> list[Any]:
    """Make an event for each number."""
    return [make() for _ in numbers]


def memory(effort: Effort) -> Iterator[Line]:
    """Tell the bytes of a subscription, and of a signal."""
    number = effort.size(MANY)
    subscribe_all = connect_all(
        lambda: dispatcher_of()[1], lambda it, handler: it.subscribe(handler)
    )
    listeners = [Listener() for _ in range(number)]
    for title, make, bound in (
        ("function", keyword_handler, 420),
        ("method, held weakly", None, 560),
    ):

        def prepare(number: int, make: Any = make) -> list[Any]:
            return many(make, number) if make else [it.handle for it in listeners]

        contenders = {OURS: bytes_of(number, prepare, subscribe_all)}
        for peer in installed():
            connecting = connect_all(peer, peer.connect)
            if peer.takes_any_keywords:
                contenders[peer.name] = bytes_of(number, prepare, connecting)
        yield Line(
            work=f"a subscription of a {title}",
            contenders=contenders,
            bound=bound,
            unit="bytes",
            rounds=1,
            collects=True,
        )

    def declare(names: list[str]) -> SignalRegistry:
        registry = SignalRegistry()
        for name in names:
            registry.signal(name)
        return registry

    contenders = {
        OURS: bytes_of(number, lambda number: [f"event_{it}" for it in range(number)], declare)
    }
    for peer in installed():
        contenders[peer.name] = bytes_of(number, range, partial(make_all, peer))
    yield Line(
        work="a signal", contenders=contenders, bound=1200, unit="bytes", rounds=1, collects=True
    )


def fresh_import(code: str) -> Contender:
    """Return what runs code in a new interpreter, which tells how long that took."""
    script = (
        "import time\nstarted = time.perf_counter_ns()\n"
        f"{code}\nprint(time.perf_counter_ns() - started)"
    )

    # Compiled files must be there from the second time on.
    environment = {it: os.environ[it] for it in os.environ if it != "PYTHONDONTWRITEBYTECODE"}

    def run(_calls: int) -> float:
        done = subprocess.run(
            [sys.executable, "-c", script],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
        )
        return int(done.stdout) / 1e6

    return run


def imports(effort: Effort) -> Iterator[Line]:
    """Import the package in a new interpreter."""
    contenders = {
        "blinker, pydantic, one model": fresh_import(PLAIN_IMPORT),
        OURS: fresh_import("import madcrow_events"),
    }
    for peer in installed():
        contenders[peer.name] = fresh_import(f"import {peer.module}")
    yield Line(
        work="import madcrow_events",
        contenders=contenders,
        base="blinker, pydantic, one model",
        bound=1.05,
        unit="ms",
    )


def recording(number: int) -> Contender:
    """Return what records so many emissions."""
    dispatcher, _ = dispatcher_of([keyword_handler()])

    def act() -> None:
        with record_events(signals=dispatcher.signals):
            for _ in range(number):
                dispatcher.emit(NAME, **KEYWORDS)

    return once(act, divisor=number)


def recorded(effort: Effort) -> Iterator[Line]:
    """Record many emissions."""
    first, all_of_them = effort.size(FIRST), effort.size(RECORDED)
    for collects, bound in (False, 1.3), (True, None):
        yield Line(
            work=f"{RECORDED:,} recorded emissions, collector {'on' if collects else 'off'}",
            contenders={f"the first {FIRST:,}": recording(first), OURS: recording(all_of_them)},
            base=f"the first {FIRST:,}",
            bound=bound,
            rounds=1,
            collects=collects,
        )
