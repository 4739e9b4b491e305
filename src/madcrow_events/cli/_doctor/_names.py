"""Names of events that differ by a letter, and old names."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations, zip_longest
from typing import TYPE_CHECKING, Any

from madcrow_events._places import Place
from madcrow_events.cli._doctor._events import place_of
from madcrow_events.cli._doctor._findings import Finding, finding
from madcrow_events.cli._places import Line, line_of
from madcrow_events.handlers._declaring import declared_handlers
from madcrow_events.signals._old_names import old_names_in, present_name, uses_of_old_names
from madcrow_events.signals._registry import declared_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from madcrow_events.cli._doctor._sources import Sources
    from madcrow_events.handlers import HandlerGroup
    from madcrow_events.signals import EventSignal, SignalRegistry

__all__ = ["old_names", "similar_names"]

_SHORT = 2
"""Parts of names of so few letters are other words if one letter differs, as `in` and `on`."""


def similar_names(
    signals: SignalRegistry,
    events: Iterable[EventSignal[Any]],
    silent: Iterable[EventSignal[Any]],
) -> Iterator[Finding]:
    """Yield a finding for each two events whose names differ by a letter, or by two swapped ones.

    Names that differ in digits only, such as `job_1` and `job_2`, are none. Nor are those of events
    that both have handlers: whoever has mistyped a name handles only one.

    Args:
        signals: the registry.
        events: the events of the application; one of each two is among them.
        silent: the events without a handler; one of each two is among them, too.
    """
    declared = {it.name: it for it in declared_in(signals)}
    order = {name: number for number, name in enumerate(declared)}
    own, unheard = {it.name for it in events}, {it.name for it in silent}
    for pair in (it for it in _near_pairs(declared) if unheard & {*it}):
        for later in sorted(own & {*pair}, key=order.__getitem__)[-1:]:
            (first,) = {*pair} - {later}
            yield finding(
                "similar_names",
                later,
                f"{later} differs from {first} by a letter",
                "if they are one event, keep one of the names; else give them names further apart",
                place_of(declared[later]),
            )


def _near_pairs(names: Iterable[str]) -> set[tuple[str, str]]:
    """Return the pairs of names that are near.

    Near names have a text in common that is one of them, or one without a letter. So only names
    with a common text are compared.
    """
    having: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        for text in {name, *(name[:at] + name[at + 1 :] for at in range(len(name)))}:
            having[text].append(name)
    pairs = {pair for found in having.values() for pair in combinations(found, 2)}
    return {pair for pair in pairs if _are_near(*pair)}


def _are_near(one: str, other: str) -> bool:
    if _without_digits(one) == _without_digits(other):
        return False
    if len(one) == len(other):
        at = [it for it in range(len(one)) if one[it] != other[it]]
        is_swap = len(at) == 2 and at[1] == at[0] + 1  # noqa: PLR2004  # two letters
        is_swap = is_swap and one[at[0]] == other[at[1]] and one[at[1]] == other[at[0]]
        if len(at) != 1 and not is_swap:
            return False
    parts = zip_longest(_parts(one), _parts(other), fillvalue="")
    lengths = (max(len(mine), len(its)) for mine, its in parts if mine != its)
    return any(it > _SHORT for it in lengths)


def _without_digits(name: str) -> str:
    return "".join(it for it in name if not it.isdigit())


def _parts(name: str) -> list[str]:
    return name.replace(".", "_").split("_")


def old_names(
    signals: SignalRegistry, groups: Iterable[HandlerGroup], sources: Sources
) -> Iterator[Finding]:
    """Yield a finding for each use of an old name, also in functions that were not called.

    Args:
        signals: the registry.
        groups: the groups of the application.
        sources: the sources of the application.
    """
    for old, name, use in uses_of_old_names(signals):
        yield _old_name(old, name, use if isinstance(use, Place) else line_of(use.handler))
    known = old_names_in(signals)
    for group in groups:
        for it in declared_handlers(group):
            if isinstance(it.event, str) and it.event in known:
                yield _old_name(it.event, present_name(signals, it.event), it.place)
    for found in sources.looked_up_in(signals):
        if found.name in known:
            yield _old_name(found.name, present_name(signals, found.name), found.line)


def _old_name(old: str, name: str, place: Line | Place | None) -> Finding:
    message = f"{old} is an old name of {name}"
    return finding("old_name", old, message, f"write {name}", place)
