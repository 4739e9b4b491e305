"""What a worker writes to the log, and announces."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Any

from madcrow_events._logs import log
from madcrow_events._names import HANDLER_FAILED
from madcrow_events._text import type_name
from madcrow_events.models import HandlerFailedEventContext
from madcrow_events.outbox._errors import OutboxError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from madcrow_events.dispatcher import EventDispatcher
    from madcrow_events.outbox._calling import Ended, Run
    from madcrow_events.outbox._rows import Failed

__all__ = ["Reporting", "delivery_id", "error_shown"]


def delivery_id(event_seq: int, handler_id: int) -> str:
    """Return the id of a delivery, as people read and write it."""
    return f"{event_seq}-{handler_id}"


def error_shown(error: BaseException) -> str:
    """Return the class of an error of the database, and its code; never its text, or values."""
    cause: Any = getattr(error, "orig", None) or error
    code = getattr(cause, "sqlite_errorname", None) or getattr(cause, "sqlstate", None)
    name = type_name(type(cause))
    return f"{name} ({code})" if isinstance(code, str) else name


def _described(failed: Failed, error: BaseException | None) -> str:
    """Return what a delivery failed with; the errors of the outbox show no value, but the fix."""
    if isinstance(error, OutboxError):
        return f"{failed.error_group}: {error}"
    return str(failed.error_group)


class Reporting:
    """Tells people of deliveries that failed.

    Args:
        dispatcher: announces what is dead.
        lease: after how many seconds a handler runs long.
    """

    def __init__(self, dispatcher: EventDispatcher, lease: float) -> None:
        self._dispatcher = dispatcher
        self._lease = lease
        self._long: dict[Run, float] = {}

    def report(self, ended: Ended, *, is_lost: bool) -> None:
        """Write what came of a run, after it was settled."""
        run, failed = ended.run, None
        self._long.pop(run, None)
        if ended.settlement is not None:
            failed = ended.settlement.failed
        row = run.rows[ended.done] if ended.done < len(run.rows) else run.rows[-1]
        id_ = delivery_id(row.event_seq, run.handler_id)
        if ended.settlement is None and ended.error is not None and not ended.is_lost:
            log(
                logging.ERROR,
                "delivery %s of %s to %s waits for the end of its lease: %s",
                id_,
                row.event,
                run.handler.name,
                type_name(type(ended.error)),
            )
        elif is_lost or ended.is_lost:
            log(
                logging.WARNING,
                "delivery %s of %s to %s was taken over by another worker",
                id_,
                row.event,
                run.handler.name,
            )
        elif failed is not None and failed.is_dead:
            log(
                logging.ERROR,
                "delivery %s of %s to %s is dead after %d attempts: %s",
                id_,
                row.event,
                run.handler.name,
                failed.attempts,
                _described(failed, ended.error),
            )
            self._announce(ended, row.event, failed.error_type or "")
        elif failed is not None and failed.error_group is not None:
            log(
                logging.WARNING,
                "delivery %s of %s to %s is tried again in %.0f seconds, after %d attempts: %s",
                id_,
                row.event,
                run.handler.name,
                failed.delay / 1_000_000,
                failed.attempts,
                _described(failed, ended.error),
            )

    def _announce(self, ended: Ended, event: str, error_type: str) -> None:
        """Emit `handler_failed`, also for a handler that was not called, or has not returned."""
        try:
            if ended.dead is not None:
                self._dispatcher.announce(ended.dead)
            elif HANDLER_FAILED in self._dispatcher.signals and event != HANDLER_FAILED:
                context = HandlerFailedEventContext(
                    event_name=event,
                    handler_name=ended.run.handler.name,
                    exception_type=error_type,
                )
                self._dispatcher.emit_typed(HANDLER_FAILED, context)
        except Exception as error:  # of a handler of `handler_failed`; it must not end the worker
            log(
                logging.ERROR,
                "the announcement of a dead delivery of %s has failed: %s",
                event,
                type_name(type(error)),
            )

    def report_long(self, runs: Iterable[Run]) -> None:
        """Write which handlers run long; again when ten more leases have passed."""
        now = monotonic()
        for run in runs:
            if self._long.get(run, now) <= now:
                log(
                    logging.WARNING,
                    "the handler %s has been handling %s for %g seconds or more",
                    run.handler.name,
                    run.rows[0].event,
                    self._lease,
                )
                self._long[run] = now + self._lease * 10
