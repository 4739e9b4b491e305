"""A durable handler: what is declared of it, and how it is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from madcrow_events._text import handler_name, printable, type_name
from madcrow_events._waiters import check_seconds
from madcrow_events.exceptions import HandlerSignatureError, InvalidOptionError
from madcrow_events.outbox._errors import HandlerIdError
from madcrow_events.outbox._retry import Retry
from madcrow_events.outbox._rows import Announced, Claimed
from madcrow_events.outbox._senders import is_plain, write
from madcrow_events.outbox._sessions import SessionParameter, may_take_session, session_parameter
from madcrow_events.outbox._versions import version_of
from madcrow_events.subscriptions import ANY
from madcrow_events.subscriptions._kinds import is_async

if TYPE_CHECKING:
    from collections.abc import Mapping

    from madcrow_events.signals import EventSignal
    from madcrow_events.subscriptions import Subscription

__all__ = ["DurableHandler", "OnDead", "declare", "lasting_name"]

OnDead = Literal["block", "continue"]

Carry = Callable[[Sequence[Sequence[Claimed]]], Sequence[tuple[int, BaseException | None]]]
"""Carries the events of several runs, all runs at once, and those of each in their order.

It returns for each run how many it has carried, and what the next has failed with; None if all are
carried, or the next is to be tried again soon.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DurableHandler:
    """A handler of an outbox.

    Attributes:
        name: its lasting name.
        signal: the signal of its event.
        bound: the handler, bound to that event; it opens its own session, if it takes one.
        session: the parameter for the session, or None.
        is_async: whether the handler is async.
        retry: when it is tried again.
        timeout: after how many seconds a call has failed; None for no limit.
        concurrency: how many runs a worker has at the same time; None for as many as it can.
        when: asked before the first call; None for every event.
        sender: the sender as it is stored; None for every sender.
        formerly: its earlier names.
        on_dead: what a dead delivery does to its key; None if the key decides.
        written_as: the handler's own name, for messages.
        function: the handler as it was given, which takes the session.
        is_ready: whether it can be called now; None if it always can.
        carry: carries events elsewhere, instead of the handler; None to call the handler.
    """

    name: str
    signal: EventSignal[Any]
    bound: Subscription
    session: SessionParameter | None
    is_async: bool
    retry: Retry
    timeout: float | None
    concurrency: int | None
    when: Callable[[Mapping[str, Any]], object] | None
    sender: str | None
    formerly: tuple[str, ...]
    on_dead: OnDead | None
    written_as: str
    function: Any
    is_ready: Callable[[], bool] | None = None
    carry: Carry | None = None

    @property
    def is_keyed(self) -> bool:
        """Whether its deliveries keep the order of their keys."""
        return self.signal.key is not None

    @property
    def version(self) -> int:
        """The newest version of the event that it can read."""
        return version_of(self.signal.name, self.signal.context_model)

    def announced(self) -> Announced:
        """Return what a worker writes down of it."""
        return Announced(
            self.name,
            self.formerly,
            self.signal.name,
            self.version,
            self.is_keyed,
            self.sender,
            self.signal.formerly,
        )


def declare(
    signal: EventSignal[Any],
    handler: Any,
    *,
    id: str | None,  # noqa: A002  # as the option of every subscription
    retry: Retry,
    timeout: float | None,
    concurrency: int | None,
    when: Callable[[Mapping[str, Any]], object] | None,
    sender: object,
    formerly: tuple[str, ...],
    on_dead: OnDead | None,
    is_ready: Callable[[], bool] | None = None,
    carry: Carry | None = None,
) -> DurableHandler:
    """Return a durable handler, and check all that was given.

    The arguments are those of `Outbox.on`, and `is_ready` and `carry` of `DurableHandler`.

    Raises:
        HandlerIdError: it has no lasting name.
        HandlerSignatureError: it cannot be called with what the event carries.
        InvalidOptionError: an option has an impossible value.
    """
    _check(retry, timeout, concurrency, sender, formerly, on_dead)
    session = session_parameter(handler)
    called = handler if session is None else session.filled_in(handler)
    awaited = is_async(handler)
    # The name of a bound handler is for logs: two outboxes may have the same one.
    try:
        bound = signal.bind(
            called,
            weak=False,
            when=when,
            timeout=timeout if awaited else None,
            id=lasting_name(handler) if id is None else id,
        )
    except HandlerSignatureError as error:
        if session is not None or not may_take_session(handler):
            raise
        raise HandlerSignatureError(
            f"{error}. To take a session, annotate it with Session or AsyncSession alone, imported "
            "where the program runs, and not only for type checkers; an AsyncSession needs "
            "`pip install 'sqlalchemy[asyncio]'`",
            event=signal.name,
            handler=handler,
        ) from None
    return DurableHandler(
        name=bound.name,
        signal=signal,
        bound=bound,
        session=session,
        is_async=awaited,
        retry=retry,
        timeout=timeout,
        concurrency=concurrency,
        when=when,
        sender=None if sender is ANY else write(sender),
        formerly=formerly,
        on_dead=on_dead,
        written_as=handler_name(handler),
        function=handler,
        is_ready=is_ready,
        carry=carry,
    )


def lasting_name(handler: Any) -> str:
    """Return the name of a handler that is the same in every process.

    Raises:
        HandlerIdError: there is none.
    """
    name = getattr(handler, "__qualname__", None)
    module = getattr(handler, "__module__", None)
    if not isinstance(name, str) or not isinstance(module, str) or "<" in name:
        raise HandlerIdError(
            f"{handler_name(handler)} has no lasting name, by which another process would know "
            "its deliveries: give it one, as in id='welcome-mail'",
            handler=handler,
        )
    if module == "__main__":
        raise HandlerIdError(
            f"{handler_name(handler)} belongs to the script that is run, and has another name "
            "where its module is imported: give it a lasting one, as in id='welcome-mail'",
            handler=handler,
        )
    return f"{module}.{name}"


def _check(
    retry: object,
    timeout: object,
    concurrency: object,
    sender: object,
    formerly: object,
    on_dead: object,
) -> None:
    if not isinstance(retry, Retry):
        raise InvalidOptionError("retry must be a Retry, such as Retry(attempts=5)", option="retry")
    check_seconds("timeout", timeout)
    if concurrency is not None and (type(concurrency) is not int or concurrency < 1):
        raise InvalidOptionError(
            "concurrency must be a positive int, or None for that of the worker",
            option="concurrency",
        )
    if sender is not ANY and not is_plain(sender):
        raise InvalidOptionError(
            f"the sender of a durable handler must be a str, an int, a UUID or None, not "
            f"{type_name(type(sender))}: other objects do not survive their process",
            option="sender",
        )
    if not isinstance(formerly, tuple) or not all(
        isinstance(it, str) and it and it.isprintable() for it in formerly
    ):
        raise InvalidOptionError(
            "formerly must be a tuple of earlier ids, such as ('send-mail',)", option="formerly"
        )
    if on_dead is not None and (
        not isinstance(on_dead, str) or on_dead not in {"block", "continue"}
    ):
        raise InvalidOptionError(
            f"on_dead must be 'block', 'continue' or None, not '{printable(on_dead)}'",
            option="on_dead",
        )
