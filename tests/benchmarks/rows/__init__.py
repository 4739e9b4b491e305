"""What is measured, by the names that one types."""

from __future__ import annotations

from ..measuring import Row
from .around import deferred, nested, scope
from .awaiting import at_once_rows, suspended
from .emitting import emit, empty, failing, shortest, typed
from .later import background, batch
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
}
