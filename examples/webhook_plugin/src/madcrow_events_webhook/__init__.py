"""Posts security alerts to a URL: signed, retried, in batches, and out of the emitter's way.

Environment:
    WEBHOOK_URL: where to post to.
    WEBHOOK_SECRET: the key of the signature, shared with the receiver.
    WEBHOOK_TIMEOUT: how long each step of a request may take, in seconds; 5 unless given.
    WEBHOOK_RETRY_FOR: how long to try again, in seconds; 60 unless given.
"""

import hashlib
import hmac
import json
import os
import time
from typing import NamedTuple

import httpx
import stamina

from madcrow_events import (
    AccountBannedEventContext,
    Batch,
    HandlerGroup,
    SuspiciousActivityEventContext,
)

__all__ = ["Settings", "group", "sign"]

group = HandlerGroup("webhook", api_version=1)


class Settings(NamedTuple):
    """What the environment says."""

    url: str
    secret: str
    timeout: float
    retry_for: float

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read them now, so that importing the plugin needs none.

        Raises:
            RuntimeError: one is missing.
        """
        missing = [name for name in ("WEBHOOK_URL", "WEBHOOK_SECRET") if not os.environ.get(name)]
        if missing:
            raise RuntimeError(f"set {' and '.join(missing)} in the environment of the application")
        return cls(
            os.environ["WEBHOOK_URL"],
            os.environ["WEBHOOK_SECRET"],
            float(os.environ.get("WEBHOOK_TIMEOUT", "5")),
            float(os.environ.get("WEBHOOK_RETRY_FOR", "60")),
        )


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a request: HMAC-SHA256 of its time and its body.

    The time is part of it, so that the receiver can refuse a request that is sent again later.
    """
    message = timestamp.encode() + b"." + body
    return "sha256=" + hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def _is_worth_another_try(error: Exception) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        return status >= 500 or status in (408, 429)  # noqa: PLR2004
    return isinstance(error, httpx.TransportError)


# A thread of the dispatcher calls them with up to 50 contexts, a second after the first at most.


@group.on(SuspiciousActivityEventContext, batch=Batch(max_size=50, max_wait=1.0))
def post_suspicious_activity(alerts: list[SuspiciousActivityEventContext]) -> None:
    """Post what looks like attacks."""
    _post("suspicious_activity", [alert.model_dump(mode="json") for alert in alerts])


@group.on(AccountBannedEventContext, batch=Batch(max_size=50, max_wait=1.0))
def post_banned_accounts(bans: list[AccountBannedEventContext]) -> None:
    """Post who was shut out."""
    _post("account_banned", [ban.model_dump(mode="json") for ban in bans])


def _post(event: str, alerts: list[dict[str, object]]) -> None:
    settings = Settings.from_environment()
    body = json.dumps({"event": event, "alerts": alerts}).encode()
    for attempt in stamina.retry_context(
        on=_is_worth_another_try, attempts=None, timeout=settings.retry_for
    ):
        with attempt:
            timestamp = str(int(time.time()))
            response = httpx.post(
                settings.url,
                content=body,
                timeout=settings.timeout,
                headers={
                    "Content-Type": "application/json",
                    "X-Webhook-Timestamp": timestamp,
                    "X-Webhook-Signature": sign(settings.secret, timestamp, body),
                },
            )
            response.raise_for_status()
