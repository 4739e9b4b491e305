"""Emissions within something: another emission, a block that holds them back, a scope."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from madcrow_events import event_scope

from ..measuring import OURS, Act, Contender, Effort, Line, timed
from ..ours import CONTEXT, KEYWORDS, NAME, context_handler, dispatcher_of, keyword_handler
from ..peers import Peer, installed

DEPTH_BOUNDS = {8: 1.3, 32: 1.5, 60: 1.5}
IN_A_BLOCK = 10


def nested_contender(depth: int) -> Contender:
    """Return what emits so many events, each but the first from the handler of the one before."""
    dispatcher, _ = dispatcher_of()
    signal: Any = dispatcher.signals.signal("one_more")

    def handler(sender: Any, left: int) -> None:
        if left:
            dispatcher.emit("one_more", left=left - 1)

    signal.subscribe(handler)
    return timed(lambda: dispatcher.emit("one_more", left=depth - 1), depth)


def nested_peers(peers: list[Peer], depth: int) -> dict[str, Contender]:
    """Return the same for those of the peers whose events take any arguments."""
    chained = {peer.name: peer.chained(depth) for peer in peers}
    return {name: timed(act, depth) for name, act in chained.items() if act is not None}


def nested_line(depth: int, bound: float | None) -> Line:
    """Return the line for so many levels."""
    peers = [make() for make in installed()]
    return Line(
        work=f"a level of {depth} nested emissions",
        contenders={
            "depth 1": nested_contender(1),
            OURS: nested_contender(depth),
            **nested_peers(peers, depth),
        },
        base="depth 1",
        bound=bound,
        calls=max(1000 // depth, 5),
        is_hot=depth < 60,
        keeps=peers,
    )


def nested(effort: Effort) -> Iterator[Line]:
    """Emit from a handler, so many levels deep."""
    for depth, bound in DEPTH_BOUNDS.items():
        yield nested_line(depth, bound)


def deferred(effort: Effort) -> Iterator[Line]:
    """Emit within a block that holds emissions back."""
    dispatcher, _ = dispatcher_of([keyword_handler()])

    def emit() -> object:
        return dispatcher.emit(NAME, **KEYWORDS)

    def in_a_block() -> None:
        with dispatcher.deferred():
            for _ in range(IN_A_BLOCK):
                emit()

    yield Line(
        work="a deferred emission, ten in a block",
        contenders={"emit": timed(emit), OURS: timed(in_a_block, IN_A_BLOCK)},
        base="emit",
        bound=4,
        calls=100,
        is_hot=True,
    )


def scope(effort: Effort) -> Iterator[Line]:
    """Emit within a scope."""
    loose, _ = dispatcher_of([keyword_handler()])
    typed, _ = dispatcher_of([context_handler()])
    emits: dict[str, Act] = {
        "emit": lambda: loose.emit(NAME, **KEYWORDS),
        "emit_typed": lambda: typed.emit_typed(NAME, CONTEXT),
    }
    for name, emit in emits.items():

        def in_scope(emit: Act = emit) -> None:
            with event_scope(request_id="request 7"):
                emit()

        yield Line(
            work=f"{name} within an event_scope of its own",
            contenders={name: timed(emit), OURS: timed(in_scope)},
            base=name,
            bound=2.5 if name == "emit" else None,
            is_hot=True,
        )
