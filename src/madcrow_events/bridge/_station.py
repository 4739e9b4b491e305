"""The thread in which a bridge is connected to its broker, and receives from it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from madcrow_events._logs import log
from madcrow_events._text import type_name
from madcrow_events.bridge._errors import MessageTooLargeError, TopologyError
from madcrow_events.exceptions import MadcrowEventsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from madcrow_events.bridge._intake import Intake
    from madcrow_events.bridge._transport import Receiver, Transport
    from madcrow_events.outbox import CloudEvent

__all__ = ["Published", "Station"]

_FIRST_WAIT: Final = 0.2
_LONGEST_WAIT: Final = 5.0
"""After how many seconds, at first and at most, what has failed is tried again."""
_START_WITHIN: Final = 3.0
"""For how many seconds the start waits until something can be received."""
_ACKNOWLEDGED_AFTER: Final = 10.0
"""For how many seconds a publisher waits for the broker."""
_QUIET_FOR: Final = 10.0
"""For how many seconds the log does not repeat that events were not acknowledged."""


@dataclass(slots=True)
class Published:
    """What came of some events.

    Attributes:
        count: how many of them the broker has acknowledged.
        error: why the next one can never be published; None if it may be tried again.
    """

    count: int = 0
    error: MessageTooLargeError | None = None


class Station:
    """An event loop in a thread, with a connection to a broker.

    Args:
        transport: the broker.
        intake: takes in what is received; None to receive nothing.
        name: the name of the service, for the log.
        regained: called when events can be published that could not be before.
    """

    def __init__(
        self,
        transport: Transport,
        intake: Intake | None,
        name: str,
        regained: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._intake = intake
        self._name = name
        self._regained = regained
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work: asyncio.Task[None] | None = None
        self._started: Future[None] = Future()
        self._is_away = self._is_idle = False
        self._quiet_until = 0.0
        self._failures = 0
        """How often in a row receiving has failed."""
        self._thread = threading.Thread(
            target=self._run, name=f"madcrow-bridge-{name}", daemon=True
        )

    @property
    def is_idle(self) -> bool:
        """Whether nothing has come for a moment, or nothing is received here."""
        return self._intake is None or self._is_idle

    @property
    def is_ready(self) -> bool:
        """Whether events can be published now, as far as is known."""
        return self._transport.is_connected

    def start(self) -> None:
        """Start the thread, and wait until it is connected, or has failed to for the first time.

        Raises:
            TopologyError: what the broker has does not fit.
        """
        self._thread.start()
        try:
            self._started.result()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Close the connection, and end the thread."""
        loop, work = self._loop, self._work
        if loop is not None and work is not None:
            try:
                loop.call_soon_threadsafe(work.cancel)
            except RuntimeError:  # the loop has ended by itself
                pass
        self._thread.join()

    def publish(self, lanes: Sequence[Sequence[CloudEvent]]) -> list[Published]:
        """Publish events in another thread than this one, and wait for the broker.

        Args:
            lanes: the events, of which those of a lane are published one after the other.

        Returns:
            For each lane, what came of it.
        """
        published = [Published() for _ in lanes]
        loop = self._loop
        if loop is not None and self.is_ready:
            work = self._publish_all(lanes, published)
            try:
                asyncio.run_coroutine_threadsafe(work, loop).result()
            except (CancelledError, RuntimeError):  # the bridge is being stopped
                work.close()
        return published

    async def _publish_all(
        self, lanes: Sequence[Sequence[CloudEvent]], published: Sequence[Published]
    ) -> None:
        # At once, because the client then has less to do for each event.
        work = [self._publish_lane(*it) for it in zip(lanes, published, strict=True)]
        try:
            async with asyncio.timeout(_ACKNOWLEDGED_AFTER):
                await asyncio.gather(*work)
        except TimeoutError:
            self._tell_unacknowledged(TimeoutError())

    async def _publish_lane(self, lane: Sequence[CloudEvent], published: Published) -> None:
        for event in lane:
            try:
                await self._transport.publish(event)
            except MessageTooLargeError as error:
                published.error = error
                return
            except Exception as error:  # whatever the client of the broker raises
                self._tell_unacknowledged(error)
                return
            published.count += 1

    # The thread

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # for the thread that waits for the start, if it does
            first = error
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            if not self._started.done():
                self._started.set_exception(first)
            elif not isinstance(first, asyncio.CancelledError):
                log(logging.ERROR, "the bridge of %s has ended: %s", self._name, _shown(first))

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._work = asyncio.current_task()
        try:
            await self._connect_first()
            received = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._stay_connected())
                if self._intake is not None:
                    group.create_task(self._receive(self._intake, received))
                    await self._wait_for(received)
                self._started.set_result(None)
        finally:
            self._loop = None
            await self._close()

    async def _connect_first(self) -> None:
        try:
            await self._transport.connect()
        except TopologyError:
            raise
        except Exception as error:  # whatever it is, the broker may come
            self._tell_away(error)

    async def _stay_connected(self) -> None:
        """Connect again whenever the client of the broker has given up."""
        wait = _FIRST_WAIT
        while True:
            if self._transport.is_connected:
                self._tell_back()
                wait = _FIRST_WAIT
                await asyncio.sleep(_FIRST_WAIT)
                continue
            wait = await self._reconnect(wait)

    async def _reconnect(self, wait: float) -> float:
        """Try to connect; return for how long to wait after the next failure."""
        try:
            await self._transport.connect()
        except Exception as error:  # as above
            self._tell_away(error)
        else:
            if self._transport.is_connected:
                return _FIRST_WAIT
            self._tell_away(None)
        await asyncio.sleep(wait)
        return min(_LONGEST_WAIT, 2 * wait)

    async def _wait_for(self, received: asyncio.Event) -> None:
        """Wait for the first attempt to receive, but not as long as a stand-by does."""
        try:
            async with asyncio.timeout(_START_WITHIN):
                await received.wait()
        except TimeoutError:
            self._is_idle = True  # another process receives

    async def _receive(self, intake: Intake, received: asyncio.Event) -> None:
        """Receive, over and over again.

        Args:
            intake: takes in what is received.
            received: is set after the first attempt.
        """
        while True:
            if self._transport.is_connected:
                await self._receive_once(intake, received)
            received.set()
            await asyncio.sleep(min(_LONGEST_WAIT, _FIRST_WAIT * 2**self._failures))

    async def _receive_once(self, intake: Intake, received: asyncio.Event) -> None:
        """Receive until something fails.

        Raises:
            TopologyError: what the broker has does not fit, and the bridge has just been started.
        """
        try:
            async with self._transport.receiving() as receiver:
                received.set()
                await self._take_in_all(receiver, intake)
        except Exception as error:  # as above
            if isinstance(error, TopologyError) and not self._started.done():
                raise
            self._is_idle = True
            self._failures = min(self._failures + 1, 10)
            if self._transport.is_connected and not self._is_away:
                self._tell_failure(error)

    async def _take_in_all(self, receiver: Receiver, intake: Intake) -> None:
        while True:
            messages = await receiver.take()
            self._is_idle = not messages
            if messages:
                await intake.take_in(messages)
                self._failures = 0

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(_ACKNOWLEDGED_AFTER):
                await self._transport.close()
        except Exception as error:  # nobody needs the connection any more
            log(logging.DEBUG, "closing a connection has failed: %s", type_name(type(error)))

    # What people hear

    def _tell_away(self, error: Exception | None) -> None:
        if not self._is_away:
            self._is_away = True
            log(
                logging.ERROR,
                "the bridge of %s cannot reach %s, and tries again: %s",
                self._name,
                self._transport.place,
                _shown(error) if error is not None else "the connection was lost",
            )

    def _tell_back(self) -> None:
        if self._is_away:
            self._is_away = False
            log(
                logging.WARNING,
                "the bridge of %s can reach %s again",
                self._name,
                self._transport.place,
            )
            self._regained()

    def _tell_unacknowledged(self, error: Exception) -> None:
        """Write that the broker has not acknowledged an event, unless it is known to be away."""
        now = time.monotonic()
        if self._transport.is_connected and not self._is_away and now >= self._quiet_until:
            self._quiet_until = now + _QUIET_FOR
            log(
                logging.WARNING,
                "%s has not acknowledged events of the bridge of %s, which sends them again: %s",
                self._transport.place,
                self._name,
                _shown(error),
            )

    def _tell_failure(self, error: Exception) -> None:
        log(
            logging.WARNING,
            "the bridge of %s receives anew from %s: %s",
            self._name,
            self._transport.place,
            _shown(error),
        )


def _shown(error: BaseException) -> str:
    """Return the text of an error of this package; of others the class, as their text may leak."""
    return str(error) if isinstance(error, MadcrowEventsError) else type_name(type(error))
