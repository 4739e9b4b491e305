"""Taking in what other services send: first into the outbox, then the broker hears that it is."""

from __future__ import annotations

import logging
from asyncio import get_running_loop
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Protocol

from madcrow_events._logs import log
from madcrow_events.bridge._judging import judge
from madcrow_events.bridge._routes import Refusal
from madcrow_events.outbox import InvalidCloudEventError
from madcrow_events.outbox._database import Database
from madcrow_events.outbox._linking import row_to_write, write_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from madcrow_events.bridge._routes import Routes
    from madcrow_events.bridge._transport import Message
    from madcrow_events.outbox import Outbox
    from madcrow_events.outbox._database import Access
    from madcrow_events.outbox._rows import Received

__all__ = ["Intake", "OutboxIntake", "StoringIntake", "settle", "tell_refusal"]

_CLOSED_WITHIN: Final = 10.0
"""For how many seconds a worker that ends waits for its database."""


class Intake(Protocol):
    """Takes in messages."""

    async def take_in(self, messages: Sequence[Message]) -> None:
        """Handle messages, or store them, and acknowledge them.

        Raises:
            Exception: it was not possible, and the messages are to be delivered again.
        """
        ...


class StoringIntake:
    """Takes in by an outbox, in a thread of its own.

    Args:
        intake: writes into the outbox.
        engine: the engine of the outbox.
    """

    def __init__(self, intake: OutboxIntake, engine: Any) -> None:
        self._intake = intake
        self._access = Database(engine)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="madcrow-intake")

    async def take_in(self, messages: Sequence[Message]) -> None:
        """Store messages, and acknowledge them."""
        loop = get_running_loop()
        store = self._intake.store
        refusals = await loop.run_in_executor(self._thread, store, messages, self._access)
        await settle(messages, refusals, self._intake.consumer)

    def close(self) -> None:
        """Close the connection to the database, when what is being stored is stored.

        A database that says nothing, or a model that never ends, does not keep the worker: what is
        not committed comes again.
        """
        closing = self._thread.submit(self._access.close)
        try:
            closing.result(_CLOSED_WITHIN)
        except TimeoutError:
            self._thread.shutdown(wait=False)
        else:
            self._thread.shutdown()


class OutboxIntake:
    """Writes the events of messages into an outbox, all of a batch in one transaction.

    Args:
        outbox: the outbox.
        routes: the events that come in.
        consumer: for whom it is noted what was taken in.
    """

    def __init__(self, outbox: Outbox, routes: Routes, consumer: str) -> None:
        self._outbox = outbox
        self._routes = routes
        self.consumer = consumer

    def store(self, messages: Sequence[Message], access: Access) -> list[Refusal | None]:
        """Write what is taken in, in this thread; return for each message why it was not.

        Raises:
            Exception: the database cannot be used.
        """
        judged = [self._judge(it) for it in messages]
        rows = [it for it in judged if not isinstance(it, Refusal)]
        if rows:
            write_rows(self._outbox, rows, access)
        return [it if isinstance(it, Refusal) else None for it in judged]

    def _judge(self, message: Message) -> Received | Refusal:
        judged = judge(message, self._routes)
        if isinstance(judged, Refusal):
            return judged
        try:
            return row_to_write(self._outbox, judged.event, judged.signal, self.consumer)
        except InvalidCloudEventError as error:
            return Refusal(str(error))


async def settle(
    messages: Sequence[Message], refusals: Sequence[Refusal | None], consumer: str
) -> None:
    """Acknowledge messages that were taken in, passed over or refused."""
    for message, refusal in zip(messages, refusals, strict=True):
        if refusal is None or refusal.is_expected:
            await message.settle()
        else:
            tell_refusal(consumer, message, refusal.reason)
            await message.refuse()


def tell_refusal(consumer: str, message: Any, reason: str) -> None:
    """Write to the log that a message is not taken in."""
    log(logging.WARNING, "the bridge of %s refuses %s: %s", consumer, message.place, reason)
