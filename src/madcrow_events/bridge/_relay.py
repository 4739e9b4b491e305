"""What is sent of the deliveries of a run, and what becomes of these."""

from __future__ import annotations

from typing import TYPE_CHECKING

from madcrow_events.bridge._errors import MessageTooLargeError
from madcrow_events.bridge._judging import LARGEST
from madcrow_events.outbox._linking import event_to_send

if TYPE_CHECKING:
    from collections.abc import Sequence

    from madcrow_events.bridge._station import Published
    from madcrow_events.outbox import CloudEvent, Outbox
    from madcrow_events.outbox._rows import Claimed

__all__ = ["Parcel"]


class Parcel:
    """The events of a run that are sent: its own ones, up to the first that cannot be.

    Args:
        outbox: the outbox.
        run: the deliveries.

    Attributes:
        events: the events to send.
    """

    def __init__(self, outbox: Outbox, run: Sequence[Claimed]) -> None:
        self.events: list[CloudEvent] = []
        self._before: list[int] = []
        """For each event, how many deliveries are done when it is to be sent."""
        self._error: BaseException | None = None
        self._done = 0
        for place, claimed in enumerate(run):
            try:
                event = event_to_send(outbox, claimed)
                check_size(event)
            except Exception as error:  # `decode` may raise anything
                self._error = error
                return
            if event is not None:
                self.events.append(event)
                self._before.append(place)
            self._done = place + 1

    def outcome(self, published: Published) -> tuple[int, BaseException | None]:
        """Return how many deliveries are done, and what the next has failed with."""
        if published.count < len(self.events):
            return self._before[published.count], published.error
        return self._done, self._error


def check_size(event: CloudEvent | None) -> None:
    """Refuse an event that no bridge would take in.

    Raises:
        MessageTooLargeError: it is too large.
    """
    size = 0 if event is None else len(event.data)
    if size > LARGEST:
        raise MessageTooLargeError(
            f"the event has {size:,} bytes, and {LARGEST:,} are allowed: store what is large "
            "elsewhere, and send where it is"
        )
