"""Hearing of commits in other processes, by PostgreSQL's NOTIFY."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from madcrow_events._logs import log
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.outbox._database import Database
from madcrow_events.outbox._reporting import error_shown

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Listener", "check_driver"]

_LOOK_EVERY: Final = 0.5
"""After how many seconds to look whether to stop."""
_AGAIN_AFTER: Final = 5.0
"""After how many seconds to connect again."""


def check_driver(engine: Any) -> None:
    """Refuse a driver that hears of no notifications.

    Raises:
        InvalidOptionError: it is neither psycopg nor asyncpg.
    """
    driver = engine.dialect.driver
    if driver not in {"psycopg", "psycopg_async", "asyncpg"}:
        raise InvalidOptionError(
            f"notify=True needs PostgreSQL by psycopg or asyncpg, not {driver}: leave it out, and "
            "workers look into the database by themselves",
            option="notify",
        )


class Listener:
    """A thread with a connection of its own, that wakes a worker.

    Args:
        engine: the engine.
        channel: what to listen to.
        wake: wakes the worker.
    """

    def __init__(self, engine: Any, channel: str, wake: Callable[[], None]) -> None:
        self._engine = engine
        self._channel = channel
        self._statement = text(f'LISTEN "{channel}"')
        self._wake = wake
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._listen, name="madcrow-outbox-listener", daemon=True
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait for its end."""
        self._stopping.set()
        self._thread.join()

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen_once()
            except Exception as error:  # the database may come back; until then the worker polls
                log(
                    logging.WARNING,
                    "the outbox hears of no commits elsewhere, and looks for itself: %s",
                    error_shown(error),
                )
                self._stopping.wait(_AGAIN_AFTER)

    def _listen_once(self) -> None:
        database = Database(self._engine)
        if database.async_engine is None:
            try:
                self._wait(database.engine)
            finally:
                database.engine.dispose()
        else:
            asyncio.run(self._wait_async(database.async_engine))

    def _wait(self, engine: Any) -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(self._statement)
            self._wait_for_notifies(connection.connection.driver_connection)

    def _wait_for_notifies(self, driver: Any) -> None:
        while not self._stopping.is_set():
            for _ in driver.notifies(timeout=_LOOK_EVERY, stop_after=1):
                self._wake()

    async def _wait_async(self, engine: Any) -> None:
        try:
            async with engine.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                await connection.execute(self._statement)
                driver = (await connection.get_raw_connection()).driver_connection
                if engine.dialect.driver == "asyncpg":
                    await self._wait_with_asyncpg(driver)
                else:
                    await self._wait_with_psycopg(driver)
        finally:
            await engine.dispose()

    async def _wait_with_psycopg(self, driver: Any) -> None:
        while not self._stopping.is_set():
            async for _ in driver.notifies(timeout=_LOOK_EVERY, stop_after=1):
                self._wake()

    async def _wait_with_asyncpg(self, driver: Any) -> None:
        await driver.add_listener(self._channel, lambda *_: self._wake())
        while not self._stopping.is_set():  # set in another thread
            if driver.is_closed():
                raise ConnectionError("the connection that listens is closed")
            await asyncio.sleep(_LOOK_EVERY)
