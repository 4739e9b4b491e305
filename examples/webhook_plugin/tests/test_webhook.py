"""The webhook arrives, signed; a server in trouble costs the emitter nothing."""

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import entry_points
from typing import Literal

import madcrow_events_webhook as webhook
import pytest
import stamina

from madcrow_events import EventDispatcher, madcrow_signals
from madcrow_events.plugins import ENTRY_POINT_GROUP
from madcrow_events.testing import assert_plugin_works, record_events

SECRET = "shared with the receiver"
TIMEOUT = 0.2  # seconds


class Receiver:
    """A server on loopback that checks signatures, and answers as it is told.

    Attributes:
        answers: what it does with the next requests: answers with a status, resets the
            connection, or is slow; it answers all others with 200.
        may_answer: whether it answers at all, yet.
        requests: how many it has had.
        alerts: those that it has answered with 200.
    """

    def __init__(self) -> None:
        self.answers: list[int | Literal["reset", "slow"]] = []
        self.may_answer = threading.Event()
        self.requests = 0
        self.alerts: list[dict[str, object]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                expected = webhook.sign(SECRET, self.headers["X-Webhook-Timestamp"], body)
                assert self.headers["X-Webhook-Signature"] == expected
                receiver.may_answer.wait(10)
                receiver.requests += 1
                answer = receiver.answers.pop(0) if receiver.answers else 200
                if answer == "reset":
                    linger = struct.pack("ii", 1, 0)  # seconds; what is sent is thrown away
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.connection.close()
                    return
                if answer == "slow":
                    time.sleep(2 * TIMEOUT)
                    return
                if answer == 200:
                    receiver.alerts += json.loads(body)["alerts"]
                self.send_response(answer)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    receiver = Receiver()
    monkeypatch.setenv("WEBHOOK_URL", receiver.url)
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("WEBHOOK_TIMEOUT", str(TIMEOUT))
    monkeypatch.setenv("WEBHOOK_RETRY_FOR", "10")
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.01,))
    thread.start()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()
    thread.join()


@pytest.fixture
def dispatcher() -> Iterator[EventDispatcher]:
    with madcrow_signals.isolated(empty=True) as signals:
        webhook.group.register(signals)
        with EventDispatcher(signals) as dispatcher:
            yield dispatcher


def emit(dispatcher: EventDispatcher, number: int) -> None:
    for count in range(number):
        dispatcher.emit("suspicious_activity", kind="brute_force", subject="mallory", count=count)


def test_it_is_a_plugin_that_works(receiver: Receiver) -> None:
    receiver.may_answer.set()
    assert_plugin_works(webhook.group)
    assert receiver.requests == 4  # each of its two events, twice


def test_alerts_arrive_signed_and_in_batches(
    receiver: Receiver, dispatcher: EventDispatcher
) -> None:
    emit(dispatcher, 120)
    dispatcher.emit("account_banned", user_id=7, reason="spam")
    assert receiver.requests == 0  # the emitter has waited for none
    receiver.may_answer.set()
    assert dispatcher.drain(10)
    assert [alert["count"] for alert in receiver.alerts if "count" in alert] == list(range(120))
    assert [alert["reason"] for alert in receiver.alerts if "reason" in alert] == ["spam"]
    assert receiver.requests == 4


@pytest.mark.parametrize(
    "answers", [[500, 503], ["reset", 500], ["slow", "reset"], [429, 408, "slow"]]
)
def test_a_server_in_trouble_costs_the_emitter_nothing_and_loses_nothing(
    receiver: Receiver,
    dispatcher: EventDispatcher,
    answers: list[int | Literal["reset", "slow"]],
) -> None:
    receiver.answers = [*answers]
    with stamina.set_testing(True, attempts=10):  # it waits no time between its attempts
        emit(dispatcher, 10)
        assert receiver.requests == 0
        receiver.may_answer.set()
        assert dispatcher.drain(10)
    assert [alert["count"] for alert in receiver.alerts] == list(range(10))
    assert receiver.requests == len(answers) + 1


def test_it_waits_between_its_attempts(receiver: Receiver, dispatcher: EventDispatcher) -> None:
    receiver.answers = [500]
    receiver.may_answer.set()
    emit(dispatcher, 1)
    assert dispatcher.drain(10)
    assert len(receiver.alerts) == 1


def test_an_absent_server_costs_the_emitter_nothing_and_is_told_when_the_retries_are_spent(
    receiver: Receiver, dispatcher: EventDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.server.server_close()
    with record_events("handler_failed") as events, stamina.set_testing(True, attempts=3):
        emit(dispatcher, 10)
        assert dispatcher.drain(10)
    events.assert_emitted("handler_failed", times=1, exception_type="ConnectError", batch_size=10)


def test_what_the_server_refuses_is_not_sent_again(
    receiver: Receiver, dispatcher: EventDispatcher
) -> None:
    receiver.answers = [400]
    receiver.may_answer.set()
    with record_events("handler_failed") as events:
        emit(dispatcher, 1)
        assert dispatcher.drain(10)
    events.assert_emitted("handler_failed", exception_type="HTTPStatusError")
    assert receiver.requests == 1


def test_a_missing_setting_is_named(
    receiver: Receiver, dispatcher: EventDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WEBHOOK_SECRET")
    with pytest.raises(RuntimeError, match="set WEBHOOK_SECRET in the environment"):
        webhook.Settings.from_environment()


def test_the_distribution_offers_it() -> None:
    (entry_point,) = entry_points(group=ENTRY_POINT_GROUP, name=webhook.group.name)
    assert entry_point.load() is webhook.group
