"""Taking in without a database: the handlers of this process are called, at least once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from madcrow_events._logs import log
from madcrow_events._text import type_name
from madcrow_events.bridge._intake import tell_refusal
from madcrow_events.bridge._judging import judge
from madcrow_events.bridge._routes import Refusal
from madcrow_events.emissions._frames import AmbientFrame, enter, leave
from madcrow_events.exceptions import MadcrowEventsError
from madcrow_events.outbox import InvalidCloudEventError, UnknownVersionError
from madcrow_events.outbox._exchange import json_of, origin_of, version_of
from madcrow_events.outbox._payload import load
from madcrow_events.outbox._versions import version_of as version_here

if TYPE_CHECKING:
    from collections.abc import Sequence

    from madcrow_events.bridge._routes import Accepted, Routes
    from madcrow_events.bridge._transport import Message
    from madcrow_events.models import BaseEventContext
    from madcrow_events.signals import SignalRegistry

__all__ = ["DirectIntake"]

_DELIVERIES: Final = 10
"""After how many deliveries a message is refused that cannot be handled."""
_LONGEST_WAIT: Final = 60.0
"""For how many seconds such a message waits at most."""


class DirectIntake:
    """Calls the handlers of events, and acknowledges a message when none of them has failed.

    Args:
        signals: the registry of the events.
        routes: the events that come in.
        consumer: the name of this service, for the log.
    """

    def __init__(self, signals: SignalRegistry, routes: Routes, consumer: str) -> None:
        self._signals = signals
        self._routes = routes
        self._consumer = consumer

    async def take_in(self, messages: Sequence[Message]) -> None:
        """Handle messages one after the other."""
        for message in messages:
            await self._take_in_one(message)

    async def _take_in_one(self, message: Message) -> None:
        judged = judge(message, self._routes)
        problem = judged if isinstance(judged, Refusal) else await self._handle(judged)
        if problem is None or (isinstance(problem, Refusal) and problem.is_expected):
            await message.settle()
        elif isinstance(problem, Refusal):
            await self._refuse(message, problem.reason)
        elif message.deliveries >= _DELIVERIES:
            await self._refuse(message, f"{problem}, {message.deliveries} times")
        else:
            delay = min(_LONGEST_WAIT, 2.0 ** (message.deliveries - 1))
            log(
                logging.WARNING,
                "the bridge of %s tries %s again in %.0f seconds: %s",
                self._consumer,
                message.place,
                delay,
                problem,
            )
            await message.give_back(delay)

    async def _refuse(self, message: Message, reason: str) -> None:
        tell_refusal(self._consumer, message, reason)
        await message.refuse()

    async def _handle(self, accepted: Accepted) -> Refusal | str | None:
        """Call the handlers of an event; return what went wrong, if something did."""
        if accepted.signal is None:
            return "no such event is declared here"
        try:
            context = self._context_of(accepted)
        except InvalidCloudEventError as error:  # which newer code cannot read, either
            return Refusal(str(error))
        except MadcrowEventsError as error:
            return str(error)
        frame = AmbientFrame()
        frame.origin = origin_of(accepted.event)
        enter(frame, self)
        try:
            emission = await self._signals.dispatcher.emit_typed_async(accepted.signal, context)
        except Exception as error:  # a dispatcher may raise what its handlers do
            return f"its handlers have failed with {type_name(type(error))}"
        finally:
            leave(frame)
        failed = sorted({type_name(type(it.exception)) for it in emission.failures})
        return f"its handlers have failed with {', '.join(failed)}" if failed else None

    def _context_of(self, accepted: Accepted) -> BaseEventContext:
        """Return the context of an event.

        Raises:
            InvalidCloudEventError: the data is no JSON object, or the version is none.
            MadcrowEventsError: it does not fit the event's model, or is of another version.
        """
        signal: Any = accepted.signal
        payload, _ = json_of(accepted.event)
        version, known = version_of(accepted.event), version_here(signal.name, signal.context_model)
        if version != known:
            raise UnknownVersionError(
                f"{signal.name} comes in version {version}, and its model here has version "
                f"{known}: deploy the same version, or use an outbox, which has upcasts",
                event=signal.name,
                version=version,
                known=known,
            )
        return load(signal.name, signal.context_model, payload)
