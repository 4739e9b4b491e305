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

security_group: HandlerGroup = HandlerGroup("security")
"""The handlers of this module."""


@security_group.on(login_failed)
def track_failed_login_attempts(
    sender: Any,
    *,
    failure_reason: str = "unknown",
    ip_address: str | None = None,
    **_rest: Any,
) -> None:
    """Count the failure by its reason and address; `failure_analytics` returns the counts.

    Args:
        sender: who emitted the event.
        failure_reason: why the attempt was refused.
        ip_address: the address that the attempt came from.
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
    """Add the attempt to the windows; emit `suspicious_activity` if one has reached its limit.

    Args:
        sender: who emitted the event.
        email: the e-mail address that was tried; upper and lower case are the same.
        ip_address: the address that the attempt came from.
        timestamp: when it happened; now if left out.
        **context: if the function is called directly, a `failure_reason` marks a failure.
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
        email: the address as it was typed. Case, width and composition of its letters
            do not matter, nor do spaces around it. The first 320 characters are kept.
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
    """Warn on the logger `madcrow_events.security`, and call the alert functions.

    Args:
        sender: who emitted the event.
        kind: the kind of alert.
        subject: the e-mail address or network address that it concerns.
        count: the number of attempts.
        window_seconds: the length of the window, in seconds.
        **context: the base fields of the event.

    Raises:
        Exception: one alert function raised it; the others were called.
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
    """Close the session that ran out.

    Args:
        sender: who emitted the event.
        user_id: the account.
        email: the account's e-mail.
        timestamp: when it happened; now if left out.
        session_duration: in seconds; counted from the sign-in if left out.

    Returns:
        The session, closed.
    """
    return sessions.close(
        user_id, email, moment(timestamp), duration=session_duration, reason="expired"
    )


def add_alert_function(function: AlertFunction) -> AlertFunction:
    """Call a function with the context of each alert from now on; usable as a decorator.

    Args:
        function: takes one argument, a `SuspiciousActivityEventContext`.

    Returns:
        The function.

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

    Returns:
        Whether it was one of the alert functions.
    """
    return alerts.remove(function)


def set_security_limits(limits: SecurityLimits) -> None:
    """Set how many failures raise an alert, and within how many seconds.

    Args:
        limits: for example `SecurityLimits(window_seconds=60, brute_force=3)`; the other
            limits get their defaults.

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
    """Return how many attempts failed, for each reason and from each address."""
    return failures.analytics()
