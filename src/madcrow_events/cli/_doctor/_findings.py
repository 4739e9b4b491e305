"""What the examination finds: these are also the shapes of its JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypedDict, get_args

from madcrow_events._text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from madcrow_events._places import Place
    from madcrow_events.cli._places import Line

__all__ = ["Examination", "Finding", "FindingKind", "finding", "in_order"]

FindingKind: TypeAlias = Literal[
    "unhandled_event",
    "undeclared_event",
    "unmatched_pattern",
    "unmatched_class",
    "unmatched_optional",
    "repeated_handler",
    "similar_names",
    "slow_import",
    "refused_plugin",
    "failed_plugin",
    "unknown_plugin",
    "unlisted_plugins",
    "old_name",
]
"""What is wrong; the page of the command says what each kind means."""

_ORDER: Final = {kind: number for number, kind in enumerate(get_args(FindingKind))}


class Finding(TypedDict):
    """One thing that is wrong."""

    kind: FindingKind
    """What is wrong, as a name that stays the same."""
    subject: str
    """The event, handler, pattern, module or plugin."""
    message: str
    """What is wrong, as a sentence."""
    fix: str
    """What to do."""
    file: str | None
    """The path of the file; None if no file is at fault."""
    line: int | None
    """The number of the line there."""


class Examination(TypedDict):
    """What `doctor --json` shows."""

    events: int
    """How many events the application declares."""
    handlers: int
    """How many subscriptions there are; one to a pattern or a class counts once. Durable handlers
    count, too."""
    plugins: int
    """How many installed plugins were examined."""
    perhaps_handled: list[str]
    """The events without a handler that an observer may follow, or that code that has not run yet
    may handle."""
    findings: list[Finding]
    """What is wrong, sorted by kind, then by file and line."""


def finding(
    kind: FindingKind, subject: str, message: str, fix: str, place: Line | Place | None
) -> Finding:
    """Return the record of one finding.

    Args:
        kind: what is wrong.
        subject: the event, handler, pattern, module or plugin.
        message: what is wrong, as a sentence without a full stop.
        fix: what to do.
        place: the line that is at fault, or None.
    """
    return {
        "kind": kind,
        "subject": printable(subject),
        "message": message,
        "fix": fix,
        "file": None if place is None else place.file,
        "line": None if place is None else place.line,
    }


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings sorted by kind, file, line and subject, and only the first of equal ones."""
    found: dict[tuple[int, str, int, str], Finding] = {}
    for it in findings:
        found.setdefault((_ORDER[it["kind"]], *_place_in(it), it["subject"]), it)
    return [found[key] for key in sorted(found)]


def _place_in(it: Finding) -> tuple[str, int]:
    return it["file"] or "", it["line"] or 0
