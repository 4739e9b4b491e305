"""Who can choose the text of an event cannot choose how much time or memory it costs (G2)."""

from __future__ import annotations

import gc
import logging
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    EventDispatcher,
    GenericEventContext,
    MadcrowEventsError,
    SignalRegistry,
    emit_event,
    madcrow_signals,
    on_event,
)
from madcrow_events.event_handlers import _stores, register_all_handlers
from madcrow_events.event_handlers._windows import MAX_TIMES
from madcrow_events.event_handlers.auth_handlers import (
    handle_user_login,
    handle_user_logout,
)

pytestmark = [pytest.mark.soak, pytest.mark.once, pytest.mark.guarantee("G2")]

MIB = 1024 * 1024

TEXTS = {
    "letters": "a",
    "accents": "\u0301\u0327",
    "emoji": "\U0001f600",
    "line breaks": "\n",
    "spaces": " ",
    "control characters": "\x1b\U000e0001",
    "ligatures": "\ufdfa",  # eighteen letters in one
    "stars": "a*",
    "hyphens": "a-",
}


class Typed(BaseEventContext):
    """A model with a text and a number."""

    text: str = ""
    number: int = 0


def emit_everything(text: str) -> None:
    """Emit each event of a user with the text in each field, to all ready-made handlers."""
    base = {"ip_address": text, "user_agent": text, "request_id": text}
    user: dict[str, Any] = {"user_id": text, "email": text, **base}
    emit_event("user_registered", name=text, account_status=text, **user)
    emit_event("login_failed", email=text, failure_reason=text, **base)
    emit_event("user_logged_in", name=text, **user)
    emit_event("session_expired", **user)
    emit_event("account_banned", reason=text, **user)
    emit_event("user_logged_out", logout_reason=text, **user)
    emit_event("suspicious_activity", kind=text, subject=text, count=1, **base)
    emit_event("system_startup", version=text, **base)
    emit_event("system_shutdown", reason=text, **base)


def fail(text: str) -> None:
    """Let a handler fail with the text, and with a cause that has it, too."""
    signals = SignalRegistry()
    signal = signals.signal("thing_happened")

    @signal.on()
    def failing(**context: Any) -> None:
        error = ValueError(text, text)
        error.add_note(text)
        raise error from KeyError(text)

    emission = EventDispatcher(signals).emit(signal, text=text)
    assert len(repr(emission)) + len(repr(emission.failures)) < 1000


def refuse(text: str) -> None:
    """Use the text in the place of names, of a sender, of fields and of their values."""
    signals = SignalRegistry()
    signal = signals.signal("typed", context=Typed)
    dispatcher = EventDispatcher(signals, validate=True)
    generic = GenericEventContext(event_type=text, data={text: text})
    refused: list[Callable[[], object]] = [
        lambda: signals.signal(text),
        lambda: dispatcher.emit(text),
        lambda: on_event(text)(print),
        lambda: signals.subscribe(f"*{text}", print),
        lambda: signal.subscribe(print, **{text: 1}),
        lambda: dispatcher.emit(signal, **{text: 1}),
        lambda: dispatcher.emit(signal, number=text),
        lambda: dispatcher.emit_typed(signal, generic),
    ]
    for use in refused:
        with pytest.raises(MadcrowEventsError) as caught:
            use()
        assert len(str(caught.value)) < 5000


def emit_many_fields(text: str) -> None:
    """Emit as many fields as a sixteenth of the text has characters, all of them unknown."""
    fields: dict[str, Any] = {f"{text[:9]}{number}": number for number in range(len(text) // 16)}
    signals = SignalRegistry()
    signal = signals.signal("typed", context=Typed)

    @signal.on()
    def take(context: Typed) -> None: ...

    signal.subscribe(lambda **context: None)
    emission = EventDispatcher(signals).emit(signal, **fields)
    assert all(len(str(failure.exception)) < 10_000 for failure in emission.failures)
    emit_event("user_logged_in", **fields)


WORKS = [emit_everything, fail, refuse, emit_many_fields]


@pytest.fixture
def handlers() -> None:
    """The ready-made handlers, whose lines are written nowhere."""
    register_all_handlers()


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
@pytest.mark.parametrize("unit", TEXTS.values(), ids=[*TEXTS])
def test_doubling_a_text_no_more_than_doubles_the_time(
    work: Callable[[str], None], unit: str, scale: float, caplog: pytest.LogCaptureFixture
) -> None:
    """Four doublings, up to 1,000,000 characters, take 16 times as long; 256 were quadratic."""
    caplog.set_level(logging.CRITICAL)

    def seconds(length: int) -> float:
        text = unit * (length // len(unit))
        gc.collect()
        started = time.thread_time()  # in which other programs have no part
        work(text)
        return time.thread_time() - started

    length = int(1_000_000 * scale)
    seconds(1000)
    # The best of several, in turn: whatever disturbs only ever adds to a time.
    times = [(seconds(length // 16), seconds(length)) for _ in range(3)]
    short, long = (min(column) for column in zip(*times, strict=True))
    print(f"{work.__name__}: {short * 1e3:.1f} ms, {long * 1e3:.1f} ms, {long / short:.1f} times")
    # Caches of the processor hold the short text, and what takes no time at all has no ratio.
    assert long < 40 * max(short, 0.001)


def bytes_of(store: object) -> int:
    """Count the bytes of all that a store refers to, each object once."""
    seen: dict[int, object] = {}
    ahead = [store]
    while ahead:
        present = ahead.pop()
        if id(present) not in seen and not isinstance(
            present, type | types.ModuleType | types.FunctionType
        ):
            seen[id(present)] = present
            ahead += gc.get_referents(present)
    return sum(map(sys.getsizeof, seen.values()))


WIDE = "\U0001f600" * 1000


def open_and_close(number: int) -> None:
    user_id, text = f"{number}{WIDE}", f"{number}{WIDE[:400]}"
    handle_user_login(None, user_id=user_id, email=text)
    handle_user_logout(None, user_id=user_id, email=text, logout_reason=text)


def count_activity(number: int) -> None:
    # Twenty events of each user in turn, which is as many as are counted.
    _stores.activity.count(f"event_{number % 20}", f"{number // 20}{WIDE[:400]}")
    _stores.activity.count(f"{number}{WIDE[:400]}", None)


def fail_to_sign_in(number: int) -> None:
    # From each address one e-mail more than a window holds, and the same to each e-mail.
    subject = f"{number // (MAX_TIMES + 1) % 10_000}"
    email, address = (f"{it}{WIDE}"[:320] for it in (f"{subject}@", subject))
    _stores.failures.failed(email, address, 1e9 + number / 1000)
    _stores.failures.failed(f"{number}{WIDE}"[:320], address, 1e9 + number / 1000)
    _stores.failures.succeeded(email, 1e9 + number / 1000)
    _stores.failures.count(f"{number}{WIDE}"[:320], f"{number}{WIDE}"[:320])


@pytest.mark.parametrize(
    ("store", "work", "bound"),
    [
        (_stores.sessions, open_and_close, 48),
        (_stores.activity, count_activity, 48),
        (_stores.failures, fail_to_sign_in, 96),
    ],
    ids=["sessions", "activity", "failures"],
)
def test_no_store_takes_more_than_its_bound(
    store: Any, work: Callable[[int], None], bound: int, scale: float
) -> None:
    """1,000,000 subjects that somebody made up to take as much as they can."""
    with madcrow_signals.isolated(empty=True):
        for number in range(int(1_000_000 * scale)):
            work(number)
        taken = bytes_of(store._state) / MIB
    print(f"{taken:.1f} MiB of {bound}")
    assert taken <= bound
    assert f"It takes at most {bound} MiB" in " ".join((type(store).__doc__ or "").split())
