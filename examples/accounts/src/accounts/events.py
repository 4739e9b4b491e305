"""The events that the applications add to the built-in ones.

The live page shows no value of an event but those of fields that are marked so:
`path: Annotated[str, SHOWN]`.
"""

from typing import Annotated

from madcrow_events import BaseEventContext, madcrow_signals

SHOWN = "shown on the live page"
"""Marks a field of a context whose value may be seen by whoever watches the events."""


@madcrow_signals.event
class PageViewed(BaseEventContext):
    """Somebody looked at a page."""

    path: Annotated[str, SHOWN]


@madcrow_signals.event
class AccountLocked(BaseEventContext):
    """Nobody can sign in for a while: with one e-mail, or from one address."""

    subject: str
    kind: Annotated[str, SHOWN]
    seconds: Annotated[float, SHOWN]


@madcrow_signals.event
class FailureRequested(BaseEventContext):
    """An administrator wants to see what a broken handler looks like."""


def fail_on_purpose(_context: FailureRequested) -> None:
    """Fail; handles `failure_requested`."""
    raise RuntimeError("on purpose: an administrator asked for it")
