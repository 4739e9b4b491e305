"""What the environment says."""

import os
from pathlib import Path
from typing import NamedTuple

from faststream.nats import NatsBroker


class Settings(NamedTuple):
    """Where a service keeps its data, and where its broker is.

    Attributes:
        folder: where its database is; made if it is not there.
        nats_url: where NATS is.
        topic: the name of the stream that the services share.
    """

    folder: Path
    nats_url: str
    topic: str

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read `TWO_SERVICES_FOLDER`, `NATS_URL` and `EVENTS_TOPIC`; each has a default."""
        return cls(
            Path(os.environ.get("TWO_SERVICES_FOLDER", "instance")),
            os.environ.get("NATS_URL", "nats://127.0.0.1:4222"),
            os.environ.get("EVENTS_TOPIC", "madcrow_events"),
        )

    def broker(self) -> NatsBroker:
        """Return the broker."""
        return NatsBroker(self.nats_url)
