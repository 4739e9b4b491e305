"""What is measured, by the names that one types."""

from __future__ import annotations

from ..measuring import Row
from .around import deferred, nested, scope
from .awaiting import at_once_rows, suspended
from .emitting import emit, empty, failing, shortest, typed
from .footprint import imports, memory, recorded
from .growth import growth
from .later import background, batch
from .registries import isolated, signals, subscribe_emit, unknown
from .subscribing import subscribe

ROWS: dict[str, Row] = {
    "emit": emit,
    "typed": typed,
    "shortest": shortest,
    "empty": empty,
    "failing": failing,
    "async": at_once_rows,
    "suspended": suspended,
    "nested": nested,
    "deferred": deferred,
    "scope": scope,
    "background": background,
    "batch": batch,
    "subscribe": subscribe,
    "subscribe-emit": subscribe_emit,
    "signals": signals,
    "unknown": unknown,
    "isolated": isolated,
    "memory": memory,
    "import": imports,
    "recorded": recorded,
    "growth": growth,
}

HOT = (
    *("emit", "typed", "shortest", "empty", "failing", "async", "suspended"),
    *("nested", "deferred", "scope", "subscribe"),
)
"""The rows with lines whose instructions are counted."""
