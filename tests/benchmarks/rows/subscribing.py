"""Subscribing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

from ..measuring import OURS, Contender, Effort, Line
from ..ours import dispatcher_of, keyword_handler
from ..peers import installed

IN_TURN = 5000


def new_function(made: FunctionType) -> Any:
    """Return a function like another one, with code of its own."""
    code = made.__code__.replace(co_firstlineno=made.__code__.co_firstlineno + 1)
    function = FunctionType(code, made.__globals__, made.__name__, None, made.__closure__)
    function.__annotations__ = dict(made.__annotations__)
    return function


def turns(turn: Callable[[Any], object], make: Callable[[], Any], *, are_new: bool) -> Contender:
    """Return what subscribes and cancels: always the same function, or always another one."""
    known = make()

    def run(calls: int) -> float:
        handlers = [new_function(known) if are_new else known for _ in range(calls)]
        started = time.perf_counter_ns()
        for handler in handlers:
            turn(handler)
        return (time.perf_counter_ns() - started) / calls

    return run


def subscribe(effort: Effort) -> Iterator[Line]:
    """Subscribe a function and cancel it."""
    for are_new, title, bound in (False, "a known function", 6.0), (True, "a new function", 12.0):
        _, signal = dispatcher_of()
        contenders = {
            OURS: turns(
                lambda handler: signal.subscribe(handler).cancel(),
                keyword_handler,
                are_new=are_new,
            )
        }
        for make in installed():
            peer = make()
            turn = peer.turn()
            if turn is not None:
                contenders[make.name] = turns(turn, peer.keyword_handler, are_new=are_new)
        yield Line(
            work=f"subscribe and cancel, {title}",
            contenders=contenders,
            base="blinker",
            bound=bound,
            calls=200,
            is_hot=True,
        )
