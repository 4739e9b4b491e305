"""How a prepared call is made: what the loops and those who prepare calls agree on."""

from __future__ import annotations

from typing import Any

__all__ = ["BY_CONTEXT", "BY_EMISSION", "BY_KEYWORDS", "BY_OPTIONS", "RECORDER"]

BY_KEYWORDS = 0  # handler(sender, **context)
BY_CONTEXT = 1  # handler(context)
BY_EMISSION = 2  # call(emission), which does the rest
BY_OPTIONS = 3  # an async handler whose subscription has options to obey first

RECORDER: Any = object()
"""The origin of subscriptions that only record, which go on while handlers are faked."""
