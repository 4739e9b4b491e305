"""Named signals, the registry that declares them, the built-in events, and explanations."""

from madcrow_events.signals import _built_in
from madcrow_events.signals._built_in import *
from madcrow_events.signals._explaining import (
    CalledHandler,
    CallMode,
    Explanation,
    LeftOutHandler,
    LeftOutReason,
)

__all__ = ["CallMode", "CalledHandler", "Explanation", "LeftOutHandler", "LeftOutReason"]
__all__ += _built_in.__all__
