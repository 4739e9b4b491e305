"""The connection to a broker that comes and goes: what waits, what people hear, what ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from madcrow_events.bridge import MessageTooLargeError, TopologyError
from madcrow_events.bridge import _station as rooms
from madcrow_events.bridge._station import Published, Station
from madcrow_events.outbox import CloudEvent
from support.outboxes import lines_of, wait_for

EVENT = CloudEvent(id="1", source="/shop", type="order_placed", data=b"{}")
AWAY = "the bridge of shop cannot reach the broker at example, and tries again: "
BACK = "the bridge of shop can reach the broker at example again"
ANEW = "the bridge of shop receives anew from the broker at example: "


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once, and wait for nothing for long."""
    for name, seconds in {
        "_FIRST_WAIT": 0.005,
        "_LONGEST_WAIT": 0.02,
        "_START_WITHIN": 0.05,
        "_ACKNOWLEDGED_AFTER": 0.1,
    }.items():
        monkeypatch.setattr(rooms, name, seconds)


class Broker:
    """A broker that a test takes away and gives back.

    As a transport and a receiver it does what the protocols ask, and fails as it is told.
    """

    place = "the broker at example"

    def __init__(self) -> None:
        self.is_connected = False
        self.is_there = True
        self.connects = 0
        self.failures: dict[str, list[BaseException | float]] = {}
        """What each method is to raise next, or for how long to wait."""
        self.published: list[CloudEvent] = []
        self.messages: asyncio.Queue[Any] | None = None
        self.is_receiving = False
        self.is_closed = False

    async def _do(self, what: str) -> None:
        failures = self.failures.get(what)
        if failures:
            failure = failures.pop(0)
            if isinstance(failure, BaseException):
                raise failure
            await asyncio.sleep(failure)

    async def connect(self) -> None:
        self.connects += 1
        await self._do("connect")
        if not self.is_there:
            raise ConnectionRefusedError("hunter2")
        self.is_connected = True

    async def publish(self, event: CloudEvent) -> None:
        await self._do("publish")
        self.published.append(event)

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[Broker]:
        await self._do("receiving")
        self.messages = asyncio.Queue()
        self.is_receiving = True
        try:
            yield self
        finally:
            self.is_receiving = False

    async def take(self) -> list[Any]:
        await self._do("take")
        await asyncio.sleep(0.001)
        if not self.is_connected:
            raise ConnectionResetError("hunter2")
        return ["message"]

    async def close(self) -> None:
        self.is_closed = True
        await self._do("close")


class Intake:
    """Counts what is taken in, and fails as it is told."""

    def __init__(self) -> None:
        self.count = 0
        self.failures: list[Exception] = []

    async def take_in(self, messages: Any) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.count += len(messages)


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def wakes() -> list[str]:
    return []


@pytest.fixture
def station(broker: Broker, wakes: list[str]) -> Any:
    """Return a function that starts a station, which is stopped at the end."""
    with contextlib.ExitStack() as stack:

        def start(intake: Intake | None = None) -> Station:
            made = Station(broker, intake, "shop", lambda: wakes.append("woken"))
            made.start()
            stack.callback(made.stop)
            return made

        yield start


def sent(station: Station) -> int:
    """Publish an event; return how many were acknowledged."""
    (published,) = station.publish([[EVENT]])
    assert published.error is None
    return published.count


def bridge_threads() -> list[str]:
    return [it.name for it in threading.enumerate() if it.name.startswith("madcrow-bridge")]


def test_what_is_published_waits_for_the_broker(broker, station):
    """And what is received is taken in."""
    intake = Intake()
    made = station(intake)
    assert made.is_ready
    assert sent(made) == 1
    assert broker.published == [EVENT]
    wait_for(lambda: intake.count)
    assert bridge_threads() == ["madcrow-bridge-shop"]
    made.stop()
    assert (broker.is_closed, broker.is_receiving, bridge_threads()) == (True, False, [])
    assert sent(made) == 0


def test_a_service_that_only_sends_receives_nothing(broker, station):
    assert sent(station()) == 1
    assert broker.messages is None


def test_a_broker_that_is_away_at_the_start_is_waited_for(broker, station, wakes, caplog):
    """The start goes on; one line says that it is away, and one that it is back."""
    broker.is_there = False
    intake = Intake()
    made = station(intake)
    assert not made.is_ready
    assert sent(made) == 0
    wait_for(lambda: broker.connects > 5)
    assert wakes == []
    broker.is_there = True
    wait_for(lambda: intake.count and wakes)
    assert lines_of(caplog) == [AWAY + "ConnectionRefusedError", BACK]
    assert wakes == ["woken"]


def test_a_connection_that_is_lost_is_made_again(broker, station, wakes, caplog):
    """One line says so, and one that it is back; what is received goes on."""
    intake = Intake()
    station(intake)
    wait_for(lambda: intake.count)
    broker.is_there = broker.is_connected = False
    before = broker.connects
    wait_for(lambda: broker.connects > before + 3)
    count = intake.count
    broker.is_there = True
    wait_for(lambda: intake.count > count and wakes)
    assert lines_of(caplog) == [AWAY + "ConnectionRefusedError", BACK]
    assert wakes == ["woken"]


def test_a_client_that_connects_by_itself_later_is_waited_for(
    broker, station, wakes, caplog, monkeypatch
):
    """It returns at once, and is connected when it is."""
    calls: list[int] = []

    async def connect():
        calls.append(1)

    monkeypatch.setattr(broker, "connect", connect)
    station()
    wait_for(lambda: len(calls) > 3)
    broker.is_connected = True
    wait_for(lambda: wakes)
    assert lines_of(caplog) == [AWAY + "the connection was lost", BACK]


@pytest.mark.parametrize("where", ["connect", "receiving"])
def test_what_does_not_fit_is_an_error_at_the_start(broker, station, where):
    """Somebody is there who can mend it."""
    broker.failures[where] = [TopologyError("the stream events does not fit: make it anew")]
    with pytest.raises(TopologyError, match="make it anew"):
        station(Intake())
    assert (broker.is_closed, bridge_threads()) == (True, [])


def test_what_does_not_fit_any_more_is_a_line_later(broker, station, caplog):
    """The work goes on: somebody may mend it."""
    intake = Intake()
    station(intake)
    wait_for(lambda: intake.count)
    problem = TopologyError("the stream events does not fit: make it anew")
    broker.failures = {"receiving": [problem, problem], "take": [ConnectionResetError()]}
    wait_for(lambda: not broker.failures["receiving"])
    count = intake.count
    wait_for(lambda: intake.count > count)
    assert lines_of(caplog) == [ANEW + "ConnectionResetError", *[ANEW + str(problem)] * 2]
    broker.failures["connect"] = [problem]
    broker.is_connected = False
    wait_for(lambda: len(lines_of(caplog)) == 5)
    assert lines_of(caplog)[3:] == [AWAY + str(problem), BACK]


def test_what_cannot_be_taken_in_is_received_anew(broker, station, caplog):
    """A line says so, and shows nothing of the error but its class."""
    intake = Intake()
    intake.failures = [RuntimeError("hunter2")]
    station(intake)
    wait_for(lambda: intake.count)
    assert lines_of(caplog) == [ANEW + "RuntimeError"]


def test_a_start_does_not_wait_for_a_service_that_stands_by(broker, station):
    """Another process may receive for as long as it lives."""
    broker.failures["receiving"] = [0.3]
    intake = Intake()
    made = station(intake)
    assert intake.count == 0
    assert sent(made) == 1
    wait_for(lambda: intake.count)


@pytest.mark.parametrize(
    ("failure", "name"), [(1.0, "TimeoutError"), (RuntimeError("hunter2"), "RuntimeError")]
)
def test_what_is_not_acknowledged_is_to_be_sent_again(broker, station, caplog, failure, name):
    """A line says so, not again and again, and shows nothing of the event."""
    made = station()
    for _ in range(2):
        broker.failures["publish"] = [failure]
        assert sent(made) == 0
    assert sent(made) == 1
    (line,) = lines_of(caplog)
    assert line == (
        "the broker at example has not acknowledged events of the bridge of shop, which sends "
        f"them again: {name}"
    )


def test_what_is_not_acknowledged_by_a_broker_that_goes_is_no_news(
    broker, station, caplog, monkeypatch
):
    """The line that it is away is enough."""
    made = station()

    async def go(_event: CloudEvent) -> None:
        broker.is_there = broker.is_connected = False
        raise ConnectionResetError

    monkeypatch.setattr(broker, "publish", go)
    assert sent(made) == 0
    wait_for(lambda: lines_of(caplog))
    assert lines_of(caplog) == [AWAY + "ConnectionRefusedError"]


def test_an_event_that_fails_holds_up_those_of_its_lane_only(broker, station):
    """These come after it; others go on."""
    too_large = MessageTooLargeError("too large")
    broker.failures["publish"] = [0.0, RuntimeError(), too_large]
    lanes = [[EVENT], [EVENT, EVENT], [EVENT, EVENT], [EVENT, EVENT]]
    assert station().publish(lanes) == [
        Published(1),
        Published(),
        Published(0, too_large),
        Published(2),
    ]


def test_what_is_not_acknowledged_at_the_end_is_given_up(broker, station):
    """Nobody waits for a broker that nobody is connected to any more."""
    made = station()
    broker.failures["publish"] = [20.0]
    stopping = threading.Timer(0.01, made.stop)
    stopping.start()
    assert sent(made) == 0
    stopping.join()


@pytest.mark.parametrize("failure", [RuntimeError("hunter2"), 1.0])
def test_a_connection_that_cannot_be_closed_is_left(broker, station, caplog, failure):
    """Nobody needs it any more, and the end waits for it only so long."""
    caplog.set_level(logging.DEBUG, "madcrow_events")
    broker.failures["close"] = [failure]
    station().stop()
    (line,) = [it for it in lines_of(caplog, logging.DEBUG) if "clos" in it]
    assert line.startswith("closing a connection has failed: ")
    assert "hunter2" not in caplog.text


def test_a_loop_that_has_ended_by_itself_is_left_alone(station):
    """It may end at the very moment at which somebody publishes, or stops it."""
    made = station()
    made.stop()
    made._loop = asyncio.new_event_loop()
    made._loop.close()
    assert sent(made) == 0
    made.stop()


def test_a_station_that_breaks_off_says_so(broker, station, caplog):
    """What ends it is no failure of the broker, so that nothing could be tried again."""
    made = station(Intake())
    broker.failures["take"] = [SystemExit("hunter2")]
    wait_for(lambda: not bridge_threads())
    assert lines_of(caplog) == ["the bridge of shop has ended: SystemExit"]
    made.stop()
    assert sent(made) == 0
