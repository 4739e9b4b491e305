"""Emitting to handlers that run at once."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from madcrow_events import EventDispatcher, LoginEventContext, emit_event, madcrow_signals

from ..measuring import OURS, Contender, Effort, Line, timed
from ..ours import (
    CONTEXT,
    KEYWORDS,
    NAME,
    SENDER,
    bare_loop,
    bare_typed_loop,
    context_handler,
    dispatcher_of,
    handlers_text,
    keyword_handler,
    many,
)
from ..peers import DjangoRobust, installed

LOOSE_BOUNDS = {1: 2.1 if sys.version_info < (3, 12) else 2.25, 10: 1.25, 100: 1.06, 1000: 1.04}
TYPED_BOUNDS = {1: 0.28, 10: 0.36, 100: 1.03, 1000: 1.0}
HOT = (1, 10, 100)
LOG = logging.getLogger("benchmark")
LOGGERS = (LOG, logging.getLogger("madcrow_events"), logging.getLogger("django.dispatch"))


def calls_for(handlers: int) -> int:
    """Return how many calls a round has."""
    return max(2000 // max(handlers, 1), 5)


def emit(effort: Effort) -> Iterator[Line]:
    """Emit with keywords."""
    for number, bound in LOOSE_BOUNDS.items():
        yield loose_line(number, bound)


def loose_line(number: int, bound: float | None) -> Line:
    """Return the line for so many handlers."""
    handlers = many(keyword_handler, number)
    dispatcher, _ = dispatcher_of(handlers)
    contenders = {
        "bare loop": timed(lambda: bare_loop(handlers, SENDER, **KEYWORDS)),
        OURS: timed(lambda: dispatcher.emit(NAME, **KEYWORDS)),
    }
    peers = [make() for make in installed()]
    for peer in peers:
        if (act := peer.emit()) is not None:
            peer.fill(peer.keyword_handler, number)
            contenders[peer.name] = timed(act)
    return Line(
        work=f"emit, {handlers_text(number)}",
        contenders=contenders,
        base="bare loop",
        bound=bound,
        calls=calls_for(number),
        handlers=number,
        is_hot=number in HOT,
        leads=True,
        keeps=peers,
    )


def typed(effort: Effort) -> Iterator[Line]:
    """Emit a context, to handlers that take it."""
    for number, bound in TYPED_BOUNDS.items():
        handlers = many(context_handler, number)
        dispatcher, signal = dispatcher_of(handlers)
        contenders = {
            "bare typed loop": timed(lambda: bare_typed_loop(handlers, CONTEXT)),
            OURS: timed(lambda: dispatcher.emit_typed(signal, CONTEXT)),
        }
        peers = [make() for make in installed()]
        for peer in peers:
            if (act := peer.emit_typed()) is not None:
                peer.fill(peer.context_handler, number)
                contenders[peer.name] = timed(act)
        is_short = number < 100 and "psygnal" in contenders
        yield Line(
            work=f"emit_typed, {handlers_text(number)}",
            contenders=contenders,
            base="psygnal" if is_short else "bare typed loop",
            bound=bound if is_short or number >= 100 else None,
            calls=calls_for(number),
            handlers=number,
            is_hot=number in HOT,
            keeps=peers,
        )


def shortest(effort: Effort) -> Iterator[Line]:
    """Emit a context by the shortest forms, on the default registry."""
    with madcrow_signals.isolated(empty=True):
        dispatcher = EventDispatcher()
        model: Any = type("OrderPlaced", (LoginEventContext,), {})
        signal: Any = madcrow_signals.signal("order_placed", context=model)
        signal.subscribe(context_handler())
        context = model(**KEYWORDS)
        by_name = timed(lambda: dispatcher.emit_typed("order_placed", context))
        forms: dict[str, tuple[Contender, float]] = {
            "order_placed.emit(…)": (timed(lambda: signal.emit(context)), 1.05),
            "emit_event(OrderPlaced(…))": (timed(lambda: emit_event(context)), 1.2),
        }
        for form, (contender, bound) in forms.items():
            yield Line(
                work=form,
                contenders={"emit_typed": by_name, OURS: contender},
                base="emit_typed",
                bound=bound,
                is_hot=True,
            )


def empty(effort: Effort) -> Iterator[Line]:
    """Emit what nobody handles."""
    dispatcher, _ = dispatcher_of()
    contenders = {OURS: timed(lambda: dispatcher.emit(NAME, **KEYWORDS))}
    peers = [make() for make in installed()]
    for peer in peers:
        if (act := peer.emit() or peer.emit_typed()) is not None:
            contenders[peer.name] = timed(act)
    yield Line(
        work=f"emit, {handlers_text(0)}",
        contenders=contenders,
        base="blinker",
        bound=1.25,
        calls=2000,
        handlers=0,
        is_hot=True,
        keeps=peers,
    )


def failing_handler(sender: Any, **context: Any) -> None:
    """Raise."""
    raise ValueError("no route to the bank")


def bare_failing(handlers: list[Any], tracebacks: bool, sender: Any, **context: Any) -> list[Any]:
    """Call each handler, and log what it raises."""
    results = []
    for handler in handlers:
        try:
            results.append(handler(sender, **context))
        except Exception as error:
            LOG.error(
                "handler %s of %s failed: %s",
                handler.__qualname__,
                NAME,
                type(error).__qualname__,
                exc_info=error if tracebacks else None,
            )
            results.append(error)
    return results


@contextmanager
def logging_to(handler: logging.Handler) -> Iterator[None]:
    """Let all that is compared log to one handler, and to nobody else."""
    before = [(logger, logger.handlers[:], logger.propagate) for logger in LOGGERS]
    for logger in LOGGERS:
        logger.handlers[:], logger.propagate = [handler], False
    try:
        yield
    finally:
        for logger, handlers, propagate in before:
            logger.handlers[:], logger.propagate = handlers, propagate


class Forgetful(io.StringIO):
    """A stream that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)


def failing(effort: Effort) -> Iterator[Line]:
    """Emit to one handler that fails."""
    for title, tracebacks, log_handler, bound in (
        ("one failing handler, no traceback", False, logging.NullHandler(), 1.5),
        ("one failing handler, traceback not written", True, logging.NullHandler(), 5.0),
        ("one failing handler, traceback written", True, logging.StreamHandler(Forgetful()), None),
    ):
        made, _ = dispatcher_of([failing_handler])
        dispatcher = EventDispatcher(made.signals, log_tracebacks=tracebacks)
        contenders = {
            "bare, failing": timed(
                lambda: bare_failing([failing_handler], tracebacks, SENDER, **KEYWORDS)
            ),
            OURS: timed(lambda: dispatcher.emit(NAME, **KEYWORDS)),
        }
        if tracebacks and DjangoRobust in installed():
            peer = DjangoRobust()  # holds a function of this module
            peer.fill(lambda: failing_handler, 1)
            contenders[peer.name] = timed(peer.emit())
        with logging_to(log_handler):
            yield Line(
                work=title,
                contenders=contenders,
                base="bare, failing",
                bound=bound,
                calls=100,
                is_hot=not tracebacks,
            )
