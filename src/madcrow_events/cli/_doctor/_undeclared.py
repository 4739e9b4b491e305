"""Uses of names of events that nobody declares."""

from __future__ import annotations

import ast
import sys
from contextlib import contextmanager
from itertools import takewhile
from traceback import walk_stack
from typing import TYPE_CHECKING, Any, NamedTuple

from madcrow_events._names import HANDLER_FAILED
from madcrow_events._places import Place, calling_place
from madcrow_events._text import close_matches, handler_name
from madcrow_events.cli._doctor._code import UNKNOWN
from madcrow_events.cli._doctor._findings import Finding, finding
from madcrow_events.cli._doctor._modules import is_standard
from madcrow_events.cli._doctor._sources import parsed
from madcrow_events.cli._places import Line, line_of
from madcrow_events.exceptions import UnknownEventError
from madcrow_events.handlers._declaring import declared_handlers, events_of
from madcrow_events.signals import EventSignal, SignalRegistry
from madcrow_events.signals._old_names import present_name
from madcrow_events.signals._registry import UNDECLARED, declared_in, is_declared_on_first_use
from madcrow_events.signals._subscribing import is_pattern
from madcrow_events.subscriptions._subscription import is_part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import FrameType

    from madcrow_events.cli._doctor._sources import Sources
    from madcrow_events.handlers import HandlerGroup

__all__ = ["Undeclared", "later_undeclared", "noting_undeclared", "undeclared"]


class Undeclared(NamedTuple):
    """A use of a name that was not declared.

    Attributes:
        event: the name.
        place: where it was used.
        signal: what stands in for the signal of such an event; None if the error was raised.
    """

    event: str
    place: Place
    signal: EventSignal[Any] | None


@contextmanager
def noting_undeclared() -> Iterator[list[Undeclared]]:
    """Return a `with` block in which the use of an undeclared name is noted, and ends no import.

    What is subscribed to such a name goes to a signal that no name finds. Where the application may
    catch the error, it is raised, because that may be what the application waits for.

    Yields:
        The uses so far.
    """
    noted: list[Undeclared] = []

    def stand_in(error: UnknownEventError) -> EventSignal[Any]:
        if _may_be_caught():
            noted.append(Undeclared(str(error.event), calling_place(), None))
            raise error
        signal: EventSignal[Any] = EventSignal(error.event)
        noted.append(Undeclared(signal.name, calling_place(), signal))
        return signal

    token = UNDECLARED.set(stand_in)
    try:
        yield noted
    finally:
        UNDECLARED.reset(token)


def _may_be_caught() -> bool:
    """Whether a line of the application that is being executed stands in a `try` or a `with`.

    Python's own lines are left out: `asyncio` runs everything in a `try`.
    """
    frames = takewhile(lambda it: not _is_of(it[0], "cli."), walk_stack(sys._getframe(2)))
    return any(
        _protects(node, line, frame)
        for frame, line in frames
        if not (_is_of(frame) or is_standard(frame.f_code.co_filename))
        for node in ast.walk(parsed(frame.f_code.co_filename, frame.f_globals))
    )


def _is_of(frame: FrameType, part: str = "") -> bool:
    """Whether a line of this package, or of a part of it, is executed."""
    return f"{frame.f_globals.get('__name__')}.".startswith(f"madcrow_events.{part}")


def _protects(node: ast.AST, line: int, frame: FrameType) -> bool:
    """Whether a line stands in a piece of code that may catch the error."""
    if isinstance(node, ast.With | ast.AsyncWith):
        return node.lineno <= line <= (node.end_lineno or line)
    if isinstance(node, ast.Try | ast.TryStar):
        in_body = node.lineno <= line <= (node.body[-1].end_lineno or line)
        return in_body and any(not _passes(it.type, frame) for it in node.handlers)
    return False


def _passes(kind: ast.expr | None, frame: FrameType) -> bool:
    """Whether an `except` with this expression is known to catch only other errors."""
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    names = {**frame.f_builtins, **frame.f_globals, **frame.f_locals}
    values = [names.get(it.id) if isinstance(it, ast.Name) else None for it in kinds]
    return all(type(it) is type and not issubclass(UnknownEventError, it) for it in values)


def undeclared(
    signals: SignalRegistry, noted: Sequence[Undeclared], groups: Iterable[HandlerGroup]
) -> Iterator[Finding]:
    """Yield a finding for each use of an undeclared name while the application was imported.

    Args:
        signals: the registry.
        noted: the uses.
        groups: the groups of the application.
    """
    of_groups = {id(it) for it in groups}
    uses = [(it, it.signal.subscriptions) for it in noted if it.signal is not None]
    # Those with handlers come first.
    for use, subscriptions in sorted(uses, key=lambda it: not it[1]):
        if not of_groups & {id(it.origin) for it in subscriptions}:  # their lines are told later
            handlers = [handler_name(it.handler) for it in subscriptions]
            yield _undeclared(signals, use.event, use.place, handlers)
    yield from _of_first_use(signals)


def later_undeclared(
    signals: SignalRegistry,
    noted: Iterable[Undeclared],
    groups: Iterable[HandlerGroup],
    sure: Iterable[HandlerGroup],
    sources: Sources,
) -> Iterator[Finding]:
    """Yield a finding for each undeclared name in a group, and in what has not run yet.

    Args:
        signals: the registry.
        noted: the uses during the import; the application has caught the errors that were raised.
        groups: the groups of the application.
        sure: those of them that are surely of this registry.
        sources: the sources of the application.
    """
    later = {name for name, _ in sources.declared}
    if UNKNOWN in later:  # any name may be declared
        return
    declared = {*later, *(name for group in groups for name in events_of(group))}
    caught = {it.event for it in noted if it.signal is None}
    for group in sure:
        for it in declared_handlers(group):
            name = it.event
            if it.is_optional or not isinstance(name, str):
                continue
            if _is_missing(signals, name, declared):
                yield _undeclared(signals, name, it.place, [handler_name(it.handler)])
    for use in sources.looked_up_in(signals) if signals.strict else ():
        if use.is_needed and _is_missing(signals, use.name, declared | caught):
            yield _undeclared(signals, use.name, use.line, [])


def _undeclared(
    signals: SignalRegistry,
    event: str,
    place: Line | Place | None,
    handlers: list[str],
    *,
    is_known: bool | None = None,
) -> Finding:
    if is_known is None:
        is_known = signals.get(event) is not None
    use = f"{handlers[0]} handles {event}" if handlers else f"{event} is used"
    if is_known:
        message = f"{use} before that event is declared"
        fix = "import the module that declares it first"
    else:
        message = f"{use}, and nobody declares that event"
        near = close_matches(event, [it for it in signals if it != event], 1)
        fix = f"write {near[0]}, or " if near else ""
        fix += "declare it in a module that is imported first"
    return finding("undeclared_event", event, message, fix, place)


def _of_first_use(signals: SignalRegistry) -> Iterator[Finding]:
    """Yield the events that a registry declares only because somebody subscribes to them."""
    for signal in declared_in(signals):
        handlers = [it.handler for it in signal.subscriptions if not is_part(it)]
        if handlers and is_declared_on_first_use(signal):
            names, place = [*map(handler_name, handlers)], line_of(handlers[0])
            yield _undeclared(signals, signal.name, place, names, is_known=False)


def _is_missing(signals: SignalRegistry, name: str, declared: set[str]) -> bool:
    """Whether a name is that of no event, neither now nor later, nor an old name."""
    canonical = present_name(signals, name.replace("-", "_"))
    known = canonical in signals or canonical in declared or canonical == HANDLER_FAILED
    return not known and not is_pattern(name)
