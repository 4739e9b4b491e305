"""Loading what imports asyncio: once, when first needed, and never across a fork.

A child that is forked while another thread imports a module inherits it half
made, behind a lock that nobody will release. So forks wait until the import
is over.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["load_async_calls"]

# Re-entrant, for a finalizer that runs during the import may emit, or fork.
_importing = threading.RLock()

if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows has no fork
    os.register_at_fork(
        before=_importing.acquire,
        after_in_parent=_importing.release,
        after_in_child=_importing.release,
    )

_loaded: list[ModuleType] = []


def load_async_calls() -> ModuleType:
    """Return the module `_async_calls`, and have asyncio loaded."""
    if not _loaded:
        with _importing:
            from madcrow_events import _async_calls  # noqa: PLC0415

            _loaded.append(_async_calls)
    return _loaded[0]
