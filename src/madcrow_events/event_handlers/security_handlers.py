"""Ready-made handlers that watch failed sign-ins and raise alerts.

There are three kinds of alerts: `brute_force` (many failures for one e-mail
address), `many_accounts` (many e-mail addresses tried from one network address)
and `success_after_failures` (a sign-in after many failures). Each kind is raised
once in a window for its subject. Times are those that the events carry, if any.
"""

from __future__ import annotations

import inspect
import logging
import time
import unicodedata
from typing import Any

from madcrow_events._text import text_of
from madcrow_events.dispatcher import get_event_dispatcher
from madcrow_events.emissions import current_event
from madcrow_events.event_handlers._bounded import MAX_KEY_LENGTH, as_field, cut, finite, moment
from madcrow_events.event_handlers._stores import AlertFunction, Session, alerts, failures, sessions
from madcrow_events.event_handlers._windows import (
    MAX_TIMES,
    FailureAnalytics,
    SecurityLimits,
    Suspicion,
)
from madcrow_events.exceptions import HandlerErrors, HandlerSignatureError, InvalidOptionError
from madcrow_events.handlers import HandlerGroup
from madcrow_events.models import SuspiciousActivityEventContext
from madcrow_events.signals import (
    login_failed,
    session_expired,
    suspicious_activity,
    user_logged_in,
)
from madcrow_events.subscriptions._kinds import is_async

__all__ = [
    "SECURITY_LOGGER",
    "AlertFunction",
    "SecurityLimits",
    "add_alert_function",
    "failure_analytics",
    "handle_session_expiration",
    "handle_suspicious_activity_alert",
    "monitor_suspicious_activity",
    "normalized_email",
    "remove_alert_function",
    "security_group",
    "set_security_limits",
    "track_failed_login_attempts",
]

SECURITY_LOGGER: logging.Logger = logging.getLogger("madcrow_events.security")
"""The logger `madcrow_events.security`. It gets a record at WARNING for each alert."""

security_group: HandlerGroup = HandlerGroup("security")
"""The handlers that watch failed sign-ins, and raise alerts."""


@security_group.on(login_failed)
def track_failed_login_attempts(
    sender: Any,
    *,
    failure_reason: str = "unknown",
    ip_address: str | None = None,
    **_rest: Any,
) -> None:
    """Count a failed sign-in by its reason and network address. Handles `login_failed`.

    `failure_analytics` returns the counts.

    Args:
        sender: the sender of the event; not used.
        failure_reason: why the attempt was refused.
        ip_address: the network address from which the attempt came, or None.
    """
    failures.count(cut(failure_reason), None if ip_address is None else cut(ip_address))


@security_group.on(login_failed)  # type: ignore[type-var]  # it takes fields by name
@security_group.on(user_logged_in)
def monitor_suspicious_activity(
    sender: Any,
    *,
    email: str,
    ip_address: str | None = None,
    timestamp: Any = None,
    **context: Any,
) -> None:
    """Watch sign-ins, and emit `suspicious_activity` when a limit of `SecurityLimits` is reached.

    Handles `login_failed` and `user_logged_in`.

    Args:
        sender: the sender of the event; not used.
        email: the e-mail address that was tried. `normalized_email` says which spellings are the
            same address.
        ip_address: the network address from which the attempt came, or None.
        timestamp: when it happened: a `datetime`, or seconds since 1970. None stands for now.
        **context: the other fields of the event. If you call the function yourself, the attempt
            counts as failed if a `failure_reason` is among them.
    """
    emission = current_event()
    failed = (
        "failure_reason" in context if emission is None else emission.event == login_failed.name
    )
    subject = normalized_email(email)
    # A wrong clock must not move a window into the future: no later failure would count.
    at = min(moment(timestamp), time.time())
    address = None if ip_address is None else cut(ip_address)
    found = failures.failed(subject, address, at) if failed else failures.succeeded(subject, at)
    for suspicion in found:
        _emit(suspicion, address)


def normalized_email(email: str) -> str:
    """Return an e-mail address in the form in which alerts name it.

    Args:
        email: the address as it was typed. The case, width and composition of its letters make no
            difference, nor do spaces around it.

    Returns:
        The address in small letters and NFKC form, without spaces around it, and 320 characters
            long at most.
    """
    # Cut first, because sorting many accents takes the square of their number. The limit is three
    # times the length, because a letter may be typed with two accents.
    typed = text_of(email).strip()[: 3 * MAX_KEY_LENGTH]
    return cut(unicodedata.normalize("NFKC", typed).casefold().strip())


def _emit(suspicion: Suspicion, address: str | None) -> None:
    emission = current_event()
    dispatcher = emission.dispatcher if emission is not None else None
    context = SuspiciousActivityEventContext(
        kind=suspicion.kind,
        subject=suspicion.subject,
        count=suspicion.count,
        window_seconds=failures.limits.window_seconds,
        ip_address=address,
    )
    (dispatcher or get_event_dispatcher()).emit_typed(suspicious_activity.name, context)


@security_group.on(suspicious_activity)  # type: ignore[type-var]  # it takes fields by name
def handle_suspicious_activity_alert(
    sender: Any,
    *,
    kind: str,
    subject: str,
    count: int,
    window_seconds: float | None = None,
    **context: Any,
) -> None:
    """Write a warning, and call the alert functions. Handles `suspicious_activity`.

    The warning goes to the logger `madcrow_events.security`.

    Args:
        sender: the sender of the event; not used.
        kind: what looks suspicious, such as `brute_force`.
        subject: the e-mail address or network address that it concerns.
        count: the number of attempts.
        window_seconds: within how many seconds the attempts were made, or None.
        **context: the fields of `BaseEventContext`.

    Raises:
        Exception: an alert function raised it. The others were called all the same.
        HandlerErrors: several alert functions raised.
    """
    SECURITY_LOGGER.warning(
        "suspicious_activity",
        extra={
            "event": suspicious_activity.name,
            "kind": as_field(kind),
            "subject": as_field(subject),
            "count": as_field(count),
            "window_seconds": as_field(window_seconds),
        },
    )
    base = {
        name: context[name]
        for name in SuspiciousActivityEventContext.model_fields
        if name in context
    }
    alert = SuspiciousActivityEventContext(
        kind=kind, subject=subject, count=count, window_seconds=window_seconds, **base
    )
    errors: list[Exception] = []
    for function in alerts.all():
        try:
            function(alert)
        except Exception as error:  # raised below, after all were called
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        message = f"{len(errors)} alert functions failed"
        raise HandlerErrors(message, errors, event=suspicious_activity.name)


@security_group.on(session_expired)  # type: ignore[type-var]  # it takes fields by name
def handle_session_expiration(
    sender: Any,
    *,
    user_id: Any,
    email: str | None = None,
    timestamp: Any = None,
    session_duration: float | None = None,
    **_rest: Any,
) -> Session:
    """Close the session of a user, with the reason `expired`. Handles `session_expired`.

    Args:
        sender: the sender of the event; not used.
        user_id: the id of the account.
        email: the e-mail address of the account, or None.
        timestamp: when it happened: a `datetime`, or seconds since 1970. None stands for now.
        session_duration: how long the session lasted, in seconds; None for the time since it was
            opened.

    Returns:
        The session, which is closed. Its `duration` is in seconds.
    """
    return sessions.close(
        user_id, email, moment(timestamp), duration=session_duration, reason="expired"
    )


def add_alert_function(function: AlertFunction) -> AlertFunction:
    """Call a function with each alert from now on. You can use this as a decorator.

    Args:
        function: a plain function of one argument, the alert's `SuspiciousActivityEventContext`.

    Returns:
        The function, unchanged.

    Raises:
        HandlerSignatureError: the function does not take one argument, or is async.
    """
    try:
        inspect.signature(function).bind(None)
    except (TypeError, ValueError):
        takes_one = False
    else:
        takes_one = not is_async(function)
    if not takes_one:
        raise HandlerSignatureError(
            "an alert function is a plain function of one argument, the alert: "
            "def lock_account(alert): ...",
            handler=function,
        )
    alerts.add(function)
    return function


def remove_alert_function(function: AlertFunction) -> bool:
    """Stop calling a function with alerts.

    Args:
        function: the function.

    Returns:
        Whether it was one of the alert functions.
    """
    return alerts.remove(function)


def set_security_limits(limits: SecurityLimits) -> None:
    """Set how many failures raise an alert, and within how many seconds.

    Args:
        limits: all limits, such as `SecurityLimits(window_seconds=60, brute_force=3)`. A limit that
            you leave out gets its default.

    Raises:
        InvalidOptionError: a number is not above 0, or not finite, or a limit is above 100, and
            could never be reached.
    """
    for name, value in limits._asdict().items():
        number = finite(value) or 0
        if number <= 0:
            raise InvalidOptionError(f"{name} must be a finite number above 0", option=name)
        if name != "window_seconds" and number > MAX_TIMES:
            raise InvalidOptionError(
                f"{name} must be {MAX_TIMES} at most, because a window counts no more failures of "
                "one subject",
                option=name,
            )
    failures.limits = limits


def failure_analytics() -> FailureAnalytics:
    """Return how many sign-ins failed.

    Returns:
        The counts as they are now. Its `total` is the number of all failures. Its `by_reason` and
            `by_address` have the number for each reason, and for each network address.
    """
    return failures.analytics()
