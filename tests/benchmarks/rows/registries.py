"""What many events cost, and many handlers of one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from itertools import count, cycle
from typing import Any

from madcrow_events import EventDispatcher, SignalRegistry, UnknownEventError

from ..measuring import OURS, Act, Effort, Line, once, timed
from ..ours import KEYWORDS, NAME, SENDER, bare_loop, dispatcher_of, keyword_handler, many
from ..peers import Peer, installed

SIGNALS = 10_000
HANDLERS = 10
IN_TURN = 5_000
MS = 1e6  # nanoseconds


def filled(signals: int, handlers: int) -> EventDispatcher:
    """Make a dispatcher of so many events, each with so many handlers."""
    registry = SignalRegistry()
    for number in range(signals):
        signal = registry.signal(f"event_{number}")
        for handler in many(keyword_handler, handlers):
            signal.subscribe(handler)
    return EventDispatcher(registry)


def at_random(dispatcher: EventDispatcher, seed: int) -> Iterator[str]:
    """Return the names of the events again and again, in an order that no cache foresees."""
    names = [*dispatcher.signals]
    random.Random(seed).shuffle(names)  # noqa: S311  # the same in each run
    return cycle(names)


def emitting_at_random(dispatcher: EventDispatcher) -> Act:
    """Return what emits the events of a dispatcher."""
    following = at_random(dispatcher, 1)
    return lambda: dispatcher.emit(next(following), **KEYWORDS)


def calling_at_random(dispatcher: EventDispatcher) -> Act:
    """Return what only calls the handlers of the events.

    In another order, or it would find in the caches what the emissions before have put there.
    """
    following = at_random(dispatcher, 2)
    signals = dispatcher.signals
    handlers = {it: [*signals[it].receivers.values()] for it in signals}
    return lambda: bare_loop(handlers[next(following)], SENDER, **KEYWORDS)


def signals(effort: Effort) -> Iterator[Line]:
    """Emit one of many events; beside it, the functions themselves are as slow to reach."""
    small, large = filled(10, HANDLERS), filled(effort.size(SIGNALS), HANDLERS)
    yield Line(
        work=f"emit one of {SIGNALS:,} events, {HANDLERS} handlers",
        contenders={
            "one of 10": timed(emitting_at_random(small)),
            OURS: timed(emitting_at_random(large)),
            "bare loop, one of 10": timed(calling_at_random(small)),
            "bare loop": timed(calling_at_random(large)),
        },
        base="one of 10",
        bound=1.10,
        calls=1000,
    )


def sender_handler() -> Any:
    """Make a handler that costs next to nothing, beside what finds it."""

    def handler(sender: Any) -> None:
        pass

    return handler


def subscribe_emit(effort: Effort) -> Iterator[Line]:
    """Subscribe and emit in turn."""
    number = effort.size(IN_TURN)
    handlers = many(sender_handler, number)

    def ours() -> None:
        dispatcher, signal = dispatcher_of()
        for handler in handlers:
            signal.subscribe(handler)
            dispatcher.emit(NAME)

    contenders = {OURS: once(ours, divisor=number)}
    for make in installed():
        if make().emit_alone() is not None:
            contenders[make.name] = once(partial(take_turns, make, handlers), divisor=number)
    yield Line(
        work=f"subscribe and emit in turn, {IN_TURN:,} handlers",
        contenders=contenders,
        base="blinker",
        bound=2,
        rounds=1,
    )


def take_turns(make: type[Peer], handlers: list[Any]) -> None:
    """Connect handlers to a new event of a peer, and emit after each."""
    peer = make()
    emit = peer.emit_alone()
    assert emit is not None
    for handler in handlers:
        peer.connect(handler)
        emit()


def unknown(effort: Effort) -> Iterator[Line]:
    """Emit an event that is not declared."""
    dispatcher = filled(effort.size(SIGNALS), 0)
    numbers = count()

    def fail() -> UnknownEventError:
        try:
            dispatcher.emit(f"evnet_{next(numbers)}")
        except UnknownEventError as error:
            return error
        raise AssertionError

    for title, act, bound in (
        ("raised", fail, 0.05),
        ("raised, and its text read", lambda: str(fail()), 10),
    ):
        yield Line(
            work=f"UnknownEventError among {SIGNALS:,}, {title}",
            contenders={OURS: once(act, divisor=MS)},
            bound=bound,
            unit="ms",
        )


def isolated(effort: Effort) -> Iterator[Line]:
    """Isolate a registry of many events."""
    for handlers, bound in (0, 40), (HANDLERS, 100):
        registry = filled(effort.size(SIGNALS), handlers).signals

        def isolate(registry: SignalRegistry = registry) -> None:
            with registry.isolated():
                pass

        yield Line(
            work=f"isolated() with {SIGNALS:,} events, {handlers} handlers each",
            contenders={OURS: once(isolate, divisor=MS)},
            bound=bound,
            unit="ms",
            rounds=10,
        )
