"""The styles of prepared calls, for the loops and for the rooms that prepare the calls."""

from __future__ import annotations

from typing import Any

__all__ = ["BY_CONTEXT", "BY_EMISSION", "BY_KEYWORDS", "BY_OPTIONS", "RECORDER"]

BY_KEYWORDS = 0  # handler(sender, **context)
BY_CONTEXT = 1  # handler(context)
BY_EMISSION = 2  # call(emission), which makes the arguments itself
BY_OPTIONS = 3  # an async handler whose subscription has options, such as a timeout

RECORDER: Any = object()
"""The origin of subscriptions that only record; they are called even while handlers are faked."""
