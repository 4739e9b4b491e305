"""The one door to what is private: where the package is rebuilt inside, this file follows.

Tests that look inside come through here. Those that are about one room of the package, such as
`test_gate.py`, go on from its object.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from madcrow_events import EventDispatcher, EventSignal, SignalRegistry
from madcrow_events import _traces as making_ids
from madcrow_events._batching import Gathering
from madcrow_events._discovery import _declared_api_version as declared_api_version
from madcrow_events._frames import CURRENT, NO_RESULT
from madcrow_events._gates import Gate
from madcrow_events._jobs import Backlog
from madcrow_events._jobs import _keep_time as keep_time
from madcrow_events._loading import running_loop
from madcrow_events._logs import handler_name, printable, type_name
from madcrow_events._subscriptions import _leave_note as leave_note
from madcrow_events._tables import _renew_all as renew_after_fork
from madcrow_events._waiting import Listeners
from madcrow_events.plugins import _check_here as check_here

__all__ = [
    "NO_RESULT",
    "Backlog",
    "Gate",
    "Gathering",
    "Listeners",
    "backlog_of",
    "check_here",
    "current_frame",
    "declared_api_version",
    "declared_in",
    "handler_name",
    "keep_time",
    "leave_note",
    "making_ids",
    "notes_of",
    "patterns_of",
    "printable",
    "renew_after_fork",
    "running_loop",
    "senders_of",
    "table_of",
    "type_name",
]


def current_frame() -> Any:
    """Return what the context knows of the emission or the block around it; None outside."""
    return CURRENT.get(None)


def backlog_of(dispatcher: EventDispatcher) -> Backlog:
    """Return what is pending in the background."""
    return dispatcher._workers._backlog


def table_of(signal: EventSignal[Any]) -> Any:
    """Return the subscriptions of a signal, and the plans made of them."""
    return signal._table


def senders_of(signal: EventSignal[Any]) -> Any:
    """Return the subscriptions of a signal by the ids of their senders."""
    return table_of(signal)._by_sender


def notes_of(signal: EventSignal[Any]) -> Any:
    """Return the notes of subscriptions that ended while the table was locked."""
    return table_of(signal)._notes


def declared_in(signals: SignalRegistry) -> Iterable[EventSignal[Any]]:
    """Return all signals of a registry."""
    return signals._declared()


def patterns_of(signals: SignalRegistry) -> list[Any]:
    """Return all that a registry keeps of patterns."""
    return [*signals._patterns._by_order, *signals._patterns._by_key]
