"""The one door to what is private: where the package is rebuilt inside, this file follows.

Tests that look inside come through here. Those that are about one room of the package, such as
`test_gate.py`, go on from its object.
"""

from __future__ import annotations

from typing import Any

from madcrow_events import EventDispatcher, EventSignal, SignalRegistry
from madcrow_events import _locks as locking
from madcrow_events import _moves as moving
from madcrow_events import _other_loops as other_loops
from madcrow_events._background import admission as admitting
from madcrow_events._background import background_loop as serving
from madcrow_events._background import batching as calling_batches
from madcrow_events._background import buffers as buffering
from madcrow_events._background import exit as ending
from madcrow_events._background import timer as timing
from madcrow_events._background import workers as working
from madcrow_events._background.background_loop import BackgroundLoop
from madcrow_events._background.backlog import Backlog
from madcrow_events._background.buffers import BatchBuffer, Batches, Turn
from madcrow_events._background.job import Job
from madcrow_events._background.timer import Timer, keep_time
from madcrow_events._background.workers import WorkerThreads
from madcrow_events._clock import calling_later
from madcrow_events._executions import definition_of
from madcrow_events._forks import _renew_all as renew_after_fork
from madcrow_events._other_loops import STRANGERS, NativeThread, other_library
from madcrow_events._places import Place, calling_place, warn_once
from madcrow_events._text import handler_name, printable, type_name
from madcrow_events._waiters import Waiters
from madcrow_events.contrib.wsgi import EventsMiddleware
from madcrow_events.emissions import _async_loop as awaiting
from madcrow_events.emissions import _blinker_loop as sending
from madcrow_events.emissions import _causes as finding_causes
from madcrow_events.emissions import _completion as completing
from madcrow_events.emissions import _delivery as delivering
from madcrow_events.emissions import _failures as noting_failures
from madcrow_events.emissions import _frames as keeping_frames
from madcrow_events.emissions import _holding as deferring
from madcrow_events.emissions import _ids as making_ids
from madcrow_events.emissions import _lingering as lingering
from madcrow_events.emissions import _loop as looping
from madcrow_events.emissions import _outcomes as settling
from madcrow_events.emissions import _recording as recording
from madcrow_events.emissions import _short_way as shortening
from madcrow_events.emissions._completion import _own_failures as finding_own_failures
from madcrow_events.emissions._completion import abandon
from madcrow_events.emissions._frames import CURRENT, enclosing
from madcrow_events.emissions._holding import DeferralFrame
from madcrow_events.emissions._lazy_asyncio import running_loop
from madcrow_events.emissions._loop import call_all
from madcrow_events.emissions._outcomes import NO_RESULT
from madcrow_events.handlers._declaring import register_wrapped
from madcrow_events.models import _building as building
from madcrow_events.plugins._checking import check_here
from madcrow_events.plugins._footprint import is_of
from madcrow_events.plugins._gate import Gate
from madcrow_events.plugins._loaded import loaded_in
from madcrow_events.plugins._reports import reason_of
from madcrow_events.signals import _renaming as renaming
from madcrow_events.signals._isolation import SavedRegistry, isolate_too
from madcrow_events.signals._registry import declared_in
from madcrow_events.signals._renaming import take_back
from madcrow_events.subscriptions import _shapes as remembering_shapes
from madcrow_events.subscriptions import _table as tabling

__all__ = [
    "NO_RESULT",
    "STRANGERS",
    "BackgroundLoop",
    "BatchBuffer",
    "Batches",
    "DeferralFrame",
    "Gate",
    "Job",
    "NativeThread",
    "Place",
    "SavedRegistry",
    "Timer",
    "Waiters",
    "WorkerThreads",
    "abandon",
    "admitting",
    "awaiting",
    "backlog_of",
    "bindings_of",
    "buffering",
    "building",
    "call_all",
    "calling_batches",
    "calling_later",
    "calling_place",
    "check_here",
    "completing",
    "current_frame",
    "declared_in",
    "deferring",
    "definition_of",
    "delivering",
    "enclosing",
    "ending",
    "finding_causes",
    "finding_own_failures",
    "handler_name",
    "is_of",
    "isolate_too",
    "keep_time",
    "keeping_frames",
    "lingering",
    "loaded_in",
    "locking",
    "looping",
    "making_ids",
    "moving",
    "noting_failures",
    "other_library",
    "other_loops",
    "patterns_of",
    "printable",
    "process_of",
    "reason_of",
    "recording",
    "register_wrapped",
    "remembering_shapes",
    "renaming",
    "renew_after_fork",
    "running_loop",
    "senders_of",
    "sending",
    "serving",
    "settling",
    "shortening",
    "stale_of",
    "table_of",
    "tabling",
    "take_back",
    "timing",
    "turn_of",
    "type_name",
    "warn_once",
    "working",
]


def current_frame() -> Any:
    """Return what the context knows of the emission or the block around it; None outside."""
    return CURRENT.get(None)


def backlog_of(dispatcher: EventDispatcher) -> Backlog:
    """Return what is pending in the background."""
    return dispatcher._admission.backlog


def table_of(signal: EventSignal[Any]) -> Any:
    """Return the subscriptions of a signal, and the plans made of them."""
    return signal._table


def senders_of(signal: EventSignal[Any]) -> Any:
    """Return the subscriptions of a signal by the ids of their senders."""
    return table_of(signal)._by_sender


def stale_of(signal: EventSignal[Any]) -> Any:
    """Return the subscriptions that have ended, and are in the table still."""
    return table_of(signal)._stale


def patterns_of(signals: SignalRegistry) -> list[Any]:
    """Return all that a registry keeps of patterns."""
    return [*signals._patterns._by_order, *signals._patterns._by_key]


def bindings_of(dispatcher: EventDispatcher) -> list[Any]:
    """Return what binds a dispatcher to loops of the application."""
    return dispatcher._admission.bound_loops.bindings


def process_of(middleware: EventsMiddleware) -> Any:
    """Return what announces the start and the end of this process."""
    return middleware._process


def turn_of(buffer: BatchBuffer) -> Turn:
    """Take the turn to handle the next batch."""
    turn = Turn(buffer)
    turn.lease.append(buffer.lease.pop())
    return turn
