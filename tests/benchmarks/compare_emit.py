"""Print how much an emission costs, as ratios against a bare loop and against peers.

Run it from a clone with the `dev` extra installed::

    python tests/benchmarks/compare_emit.py

Every figure of a row comes from the same run: the candidates take turns, round
by round, and the ratio is taken between the medians of their rounds. The bare
loop calls each handler with the same keywords inside `try` and collects the
results; it is the least that anything can cost.
"""

from __future__ import annotations

import argparse
import gc
import platform
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import blinker
import psygnal
import pyee

from madcrow_events import (
    EventDispatcher,
    LoginEventContext,
    SignalRegistry,
    emit_event,
    madcrow_signals,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# The keywords of the reference's own login example.
KEYWORDS = {"user_id": "123", "email": "user@example.com", "name": "User", "ip_address": "10.0.0.1"}
CONTEXT = LoginEventContext(**KEYWORDS)
NAME = "user_logged_in"

LOOSE_BOUNDS = {1: 2.2, 10: 1.35, 100: 1.15}
TYPED_BOUNDS = {1: 0.45, 10: 0.38, 100: 0.35}
EMPTY_BOUND = 1.6
SHORTEST_BOUNDS = {"signal.emit": 1.05, "emit_event": 1.2}


def bare_loop(handlers: list[Any], sender: Any, **context: Any) -> list[Any]:
    """Call each handler and collect what it returns; the floor of the comparison."""
    results = []
    for handler in handlers:
        try:
            results.append(handler(sender, **context))
        except Exception as error:
            results.append(error)
    return results


def keyword_handlers(number: int) -> list[Any]:
    """Make handlers that take the context as keywords."""

    def make() -> Any:
        def handler(sender: Any, **context: Any) -> None:
            pass

        return handler

    return [make() for _ in range(number)]


def context_handlers(number: int) -> list[Any]:
    """Make handlers that take the context as one object."""

    def make() -> Any:
        def handler(context: LoginEventContext) -> None:
            pass

        return handler

    return [make() for _ in range(number)]


def registry(handlers: list[Any]) -> tuple[EventDispatcher, Any]:
    """Make a dispatcher whose one event has these handlers."""
    signals = SignalRegistry()
    signal = signals.signal(NAME, context=LoginEventContext)
    for handler in handlers:
        signal.subscribe(handler)
    return EventDispatcher(signals), signal


def measured(candidates: dict[str, Callable[[], Any]], calls: int, rounds: int) -> dict[str, float]:
    """Return the median time of a call, in nanoseconds, for candidates that take turns."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for candidate in candidates.values():
        candidate()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, candidate in candidates.items():
                started = time.perf_counter_ns()
                for _ in range(calls):
                    candidate()
                times[name].append((time.perf_counter_ns() - started) / calls)
    finally:
        gc.enable()
    return {name: statistics.median(values) for name, values in times.items()}


def loose(number: int) -> dict[str, Callable[[], Any]]:
    """Emissions with keywords."""
    handlers = keyword_handlers(number)
    dispatcher, _ = registry(handlers)
    peer = blinker.NamedSignal(NAME)
    for handler in handlers:
        peer.connect(handler, weak=False)
    emitter = pyee.EventEmitter()
    for handler in handlers:
        emitter.on(NAME, handler)
    return {
        "bare loop": lambda: bare_loop(handlers, "sender", **KEYWORDS),
        "madcrow": lambda: dispatcher.emit(NAME, **KEYWORDS),
        "pyee": lambda: emitter.emit(NAME, "sender", **KEYWORDS),
        "blinker": lambda: peer.send("sender", **KEYWORDS),
    }


def typed(number: int) -> dict[str, Callable[[], Any]]:
    """Emissions with a context model, to handlers that take it."""
    handlers = context_handlers(number)
    dispatcher, signal = registry(handlers)
    peer = psygnal.SignalInstance((object,))
    for handler in handlers:
        peer.connect(handler)
    return {
        "psygnal": lambda: peer.emit(CONTEXT),
        "madcrow": lambda: dispatcher.emit_typed(signal, CONTEXT),
        "by name": lambda: dispatcher.emit_typed(NAME, CONTEXT),
    }


def shortest(number: int) -> dict[str, Callable[[], Any]]:
    """Emissions of a context by the shortest forms, and by name, on the default registry."""
    dispatcher = EventDispatcher()
    model = type("OrderPlaced", (LoginEventContext,), {})
    name = f"order_placed_{number}"
    signal = madcrow_signals.signal(name, context=model)
    for handler in context_handlers(number):
        signal.subscribe(handler)
    context = model(**KEYWORDS)
    candidates: dict[str, Callable[[], Any]] = {
        "by name": lambda: dispatcher.emit_typed(name, context)
    }
    if hasattr(signal, "emit"):  # an earlier version has neither
        candidates["signal.emit"] = lambda: signal.emit(context)
        candidates["emit_event"] = lambda: emit_event(context)
    return candidates


def empty() -> dict[str, Callable[[], Any]]:
    """Emissions that reach nobody."""
    dispatcher, _ = registry([])
    peer = blinker.NamedSignal(NAME)
    return {
        "blinker": lambda: peer.send("sender", **KEYWORDS),
        "madcrow": lambda: dispatcher.emit(NAME, **KEYWORDS),
    }


def show(title: str, base: str, figures: dict[str, float], bound: float) -> bool:
    """Print one row; return whether the bound holds."""
    ratios = {name: value / figures[base] for name, value in figures.items() if name != base}
    shown = "  ".join(f"{name} {ratio:5.2f}" for name, ratio in ratios.items())
    holds = ratios["madcrow"] <= bound
    verdict = "holds" if holds else "MISSED"
    print(f"{title:14} {figures[base]:9.0f} ns {base:9}  {shown}   bound {bound:.2f} {verdict}")
    return holds


def main() -> int:
    """Print all rows; the exit status tells whether every bound holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=101, help="rounds of each row")
    rounds = parser.parse_args().rounds
    print(f"Python {platform.python_version()}, ratios to the first column, medians of {rounds}")
    held = []
    for number, bound in LOOSE_BOUNDS.items():
        figures = measured(loose(number), 2000 // number, rounds)
        held.append(show(f"loose, {number}", "bare loop", figures, bound))
    for number, bound in TYPED_BOUNDS.items():
        figures = measured(typed(number), 2000 // number, rounds)
        held.append(show(f"typed, {number}", "psygnal", figures, bound))
    held.append(show("empty", "blinker", measured(empty(), 2000, rounds), EMPTY_BOUND))
    figures = measured(shortest(1), 2000, rounds)
    for form, bound in SHORTEST_BOUNDS.items():
        row = {"by name": figures["by name"], "madcrow": figures[form]}
        held.append(show(form, "by name", row, bound))
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
