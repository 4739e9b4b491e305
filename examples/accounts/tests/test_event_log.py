"""The event log tells what happened, in what order, how long it took, and no more than it may."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from accounts import SHOWN, EventLog, event_log

from madcrow_events import BaseEventContext, EventDispatcher, SignalRegistry

SECRET = "canary of a payload"


class Paid(BaseEventContext):
    order: Annotated[int, SHOWN]
    card: str = SECRET


@pytest.fixture
def signals() -> SignalRegistry:
    signals = SignalRegistry()
    signals.signal("paid", context=Paid)
    signals.signal("receipt_sent")
    return signals


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path)


@pytest.fixture
def watched(signals: SignalRegistry, log: EventLog) -> Iterator[EventDispatcher]:
    with EventDispatcher(signals, log_tracebacks=False) as dispatcher:
        dispatcher.add_observer(log)
        yield dispatcher


def entries(log: EventLog) -> list[dict[str, Any]]:
    log._dispatcher.drain(5)
    return [json.loads(text) for _, text in log.after(0)]


def test_it_tells_events_calls_and_what_caused_what(
    watched: EventDispatcher, log: EventLog
) -> None:
    """With times and failures; plain, async and background handlers alike."""

    @watched.signals["paid"].on()
    def send_receipt(context: Paid) -> None:
        watched.emit("receipt_sent", to=SECRET)

    @watched.signals["paid"].on(background=True)
    def fail(sender: object) -> None:
        raise ConnectionError(SECRET)

    watched.emit_typed("paid", Paid(order=7))
    watched.drain(5)
    told = entries(log)
    events = {entry["event"]: entry for entry in told if entry["kind"] == "event"}
    calls = {entry["handler"].rpartition(".")[2]: entry for entry in told if "handler" in entry}
    paid, sent = events["paid"], events["receipt_sent"]
    assert (paid["cause"], paid["root"]) == (None, paid["id"])
    assert (sent["cause"], sent["root"]) == (paid["id"], paid["id"])
    assert (paid["handlers"], paid["process"]) == (2, os.getpid())
    assert paid["took"] > 0
    assert {entry["of"] for entry in calls.values()} == {paid["id"]}
    assert calls["send_receipt"]["failure"] is None
    assert calls["fail"]["failure"] == "ConnectionError"
    assert (paid["fields"], sent["fields"]) == ({"order": "7"}, {})
    assert SECRET not in json.dumps(told)


def test_a_loose_event_shows_the_marked_fields_of_its_model(
    watched: EventDispatcher, log: EventLog
) -> None:
    """Cut, if they are long; one that is missing is missing."""
    watched.emit("paid", order="9" * 999, card=SECRET)
    watched.emit("paid")
    assert [entry["fields"] for entry in entries(log)] == [{"order": "9" * 200}, {}]


def test_a_when_that_fails_is_told(watched: EventDispatcher, log: EventLog) -> None:
    """Though its handler was never called."""

    def never(sender: object) -> None: ...

    watched.signals.subscribe("paid", never, when=lambda context: 1 / 0)
    watched.emit("paid", order=1)
    assert [entry.get("failure") for entry in entries(log)] == ["ZeroDivisionError", None]


def test_it_counts_as_no_level_of_what_it_watches(watched: EventDispatcher, log: EventLog) -> None:
    """A chain of 64 events ends well with it, as without it."""
    watched.signals.signal("next", context=None)

    @watched.signals["next"].on()
    def go_on(sender: object, left: int) -> None:
        if left:
            watched.emit("next", left=left - 1)

    assert watched.emit("next", left=63).ok
    assert len(entries(log)) == 128


def test_it_keeps_the_newest(
    watched: EventDispatcher, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "KEPT", 10)
    for number in range(30):
        watched.emit("paid", order=number)
    assert [entry["fields"]["order"] for entry in entries(log)] == [str(n) for n in range(20, 30)]


def test_a_page_goes_on_where_it_was(watched: EventDispatcher, log: EventLog) -> None:
    """With the id that its browser sends, also to another process; any other starts anew."""

    def orders(text: str) -> list[str]:
        return [line.partition('"order": ')[2][1] for line in text.splitlines() if "order" in line]

    for number in range(5):
        watched.emit("paid", order=number)
    entries(log)
    again = EventLog(log._file.parent)
    first = log.follow()
    text = first.read()
    assert text.startswith("retry: 250\n\nid: 1\ndata: {")
    assert orders(text) == list("01234")
    assert first.read() == ""
    assert orders(again.follow("3").read()) == list("34")
    for unknown in ("", "x", "-1", "9" * 5000, "٣"):
        assert orders(log.follow(unknown).read()) == list("01234")
    assert orders(log.follow("1000").read()) == []
    watched.emit("paid", order=5)
    entries(log)
    assert orders(first.read()) == ["5"]
    assert not first.is_over


def test_a_file_that_cannot_be_written_costs_no_event(
    watched: EventDispatcher, log: EventLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, once for a batch."""
    for file in tmp_path.iterdir():
        file.unlink()
    (tmp_path / "events.db").mkdir()
    assert watched.emit("paid", order=1).ok
    log._dispatcher.drain(5)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
