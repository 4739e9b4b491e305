"""Checking what a bridge is made with."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from madcrow_events._waiters import check_seconds
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.outbox import Outbox
from madcrow_events.signals import SignalRegistry

__all__ = ["check_settings"]


def check_settings(
    outbox: object,
    inbox: object,
    consumer: object,
    topic: object,
    lease: object,
    retention: object,
) -> None:
    """Refuse what a bridge cannot be made with.

    Raises:
        InvalidOptionError: a value is impossible.
    """
    if not isinstance(outbox, Outbox | SignalRegistry):
        raise InvalidOptionError(
            "the first argument must be an Outbox, or, with inbox=None, a SignalRegistry",
            option="outbox",
        )
    if not isinstance(outbox, Outbox) and inbox is not None:
        raise InvalidOptionError(
            "without an outbox, events are handled at least once, and not once: say so by "
            "inbox=None, or give the bridge an Outbox",
            option="inbox",
        )
    if inbox not in ("outbox", None):
        raise InvalidOptionError("inbox must be 'outbox' or None", option="inbox")
    for option, name in (("consumer", consumer), ("topic", topic)):
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidOptionError(
                f"{option} must be a text of up to 64 letters, digits, '_' and '-', such as "
                "'shipping'",
                option=option,
            )
    check_seconds("lease", lease, allow_none=False)
    if not isinstance(retention, timedelta) or retention <= timedelta(0):
        raise InvalidOptionError(
            "retention must be a timedelta above 0, such as timedelta(days=7)", option="retention"
        )


_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
