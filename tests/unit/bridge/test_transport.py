"""What all transports share."""

from __future__ import annotations

import pytest

from madcrow_events.bridge._transport import shown_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://localhost:4222", "nats://localhost:4222"),
        ("nats://alice:hunter2@localhost:4222", "nats://localhost:4222"),
        ("nats://hunter2@localhost", "nats://localhost"),
        (
            "amqp://a:hunter2@localhost:5672/v?heartbeat=1&password=hunter2",
            "amqp://localhost:5672/v",
        ),
        ("redis://:hunter2@localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://a:hunt@er2@localhost", "redis://localhost"),
        ("tls://a:hunt/er2@localhost", "tls://localhost"),
        ("tls://a:hunt?er2@localhost", "tls://localhost"),
        ("localhost:4222", "localhost:4222"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url, shown):
    """Whatever characters a password has, and also where it stands in the query."""
    assert shown_url(url) == shown
