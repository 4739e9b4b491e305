"""Print through how many functions and rooms an emission goes, on its emitter's side.

Run it from a clone with the package installed::

    python tests/benchmarks/count_ways.py

Calls of the package's functions are noted by `sys.setprofile` in the emitting thread, after a
first emission has built what later ones find. A room is a module; a move is a call that comes
from another room than the one before it; a climb is a call into a wing above that of its caller.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import madcrow_events
from madcrow_events import EventDispatcher, emit_event, madcrow_signals

PACKAGE = Path(madcrow_events.__file__).parent
FLOORS = [
    ("testing",),
    ("event_handlers", "plugins"),
    ("handlers",),
    ("dispatcher",),
    ("deferrals", "observers"),
    ("signals", "_background"),
    ("subscriptions",),
    ("emissions",),
]


def room_of(frame: FrameType | None) -> str:
    """Return the module of a frame, without the package's name; empty for other code."""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        frame = frame.f_back
    return ""


def floor_of(room: str) -> int:
    wing = room.partition(".")[0]
    return next((i for i, wings in enumerate(FLOORS) if wing in wings), len(FLOORS))


def measure(act: Callable[[], Any]) -> str:
    """Return the figures of one act."""
    rooms: list[str] = []
    functions: set[object] = set()
    climbs: list[str] = []

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event != "call" or not Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
            return
        room, caller = room_of(frame), room_of(frame.f_back)
        rooms.append(room)
        functions.add(frame.f_code)
        if caller and floor_of(room) < floor_of(caller):
            climbs.append(f"{caller} > {room}.{frame.f_code.co_name}")

    sys.setprofile(profile)
    try:
        act()
    finally:
        sys.setprofile(None)
    moves = sum(a != b for a, b in pairwise(rooms))
    lines = [
        f"{len(functions):3} functions, {len({*rooms})} rooms, {moves} moves, {len(climbs)} climbs",
        *("            " + climb for climb in climbs),
    ]
    if "-v" in sys.argv:
        lines += ["            " + room for room in rooms]
    return "\n".join(lines)


def deferred(dispatcher: EventDispatcher) -> None:
    with dispatcher.deferred():
        dispatcher.emit("inline")


def main() -> None:
    def handler(_sender: object, **_context: Any) -> None: ...

    dispatcher = EventDispatcher()
    for name, background in [("inline", False), ("later", True)]:
        madcrow_signals.signal(name).subscribe(handler, background=background)
    ways: dict[str, Callable[[], Any]] = {
        "emit_event": lambda: emit_event("inline"),
        "background": lambda: dispatcher.emit("later"),
        "deferred": lambda: deferred(dispatcher),
    }
    for name, act in ways.items():
        act()
        assert dispatcher.drain(10)
        print(f"{name:12}{measure(act)}")
        assert dispatcher.drain(10)


if __name__ == "__main__":
    main()
