"""Events of applications on WSGI: scope, deferral, streams, and the start and end of a process."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from madcrow_events import (
    Emission,
    EventDispatcher,
    EventSignal,
    InvalidOptionError,
    SignalRegistry,
    get_event_dispatcher,
    madcrow_signals,
)
from madcrow_events.contrib.wsgi import EventsMiddleware
from support.inside import current_frame, process_of

pytestmark = [pytest.mark.guarantee("B4", "B5"), pytest.mark.usefixtures("_everything_is_left")]

ENVIRON = {
    "HTTP_X_REQUEST_ID": "r-17",
    "HTTP_USER_AGENT": "test",
    "REMOTE_ADDR": "192.0.2.1",
}


@pytest.fixture
def _everything_is_left() -> Iterator[None]:
    yield
    assert current_frame() is None


class Heard(list[Emission]):
    """The emissions that went out."""

    def numbers(self) -> list[Any]:
        return [emission.context["number"] for emission in self]


@pytest.fixture
def heard(signal: EventSignal[Any]) -> Heard:
    emissions = Heard()

    @signal.on()
    def hear(emission: Emission) -> None:
        emissions.append(emission)

    return emissions


class Body:
    """The body of a response, in the hands of a server."""

    def __init__(self, app: Callable[..., Any], **environ: Any) -> None:
        self.head: list[Any] = []
        self.body = app({**ENVIRON, **environ}, lambda *head: self.head.append(head) or print)
        self.parts = iter(self.body)

    def read(self) -> bytes:
        return b"".join(self.parts)

    def close(self) -> None:
        self.body.close()


def get(app: Callable[..., Any], **environ: Any) -> bytes:
    """Return the whole body of a response."""
    body = Body(app, **environ)
    try:
        return body.read()
    finally:
        body.close()


class Closing:
    """What most applications return: parts that are closed."""

    def __init__(self, parts: Any, close: Callable[[], object]) -> None:
        self.parts = parts
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.parts)


# Scope


def test_an_event_knows_request_id_address_and_user_agent(
    dispatcher: EventDispatcher, heard: Heard
) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        assert environ["madcrow_events.dispatcher"] is dispatcher
        dispatcher.emit("thing_happened", number=1)
        start_response("200 OK", [])
        return []

    middleware = EventsMiddleware(app, dispatcher)
    get(middleware)
    assert heard[0].context == {
        "number": 1,
        "request_id": "r-17",
        "ip_address": "192.0.2.1",
        "user_agent": "test",
    }
    get(middleware, HTTP_X_REQUEST_ID="no id", REMOTE_ADDR="", HTTP_USER_AGENT="")
    assert set(heard[1].context) == {"number", "request_id"}
    assert len(heard[1].context["request_id"]) == 32


def test_the_default_dispatcher_is_looked_up_for_each_request() -> None:
    """So that it may be set after the middleware is made."""
    states = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        states.append(get_event_dispatcher().emit("thing_happened").state)
        start_response("200 OK", [])
        return []

    middleware = EventsMiddleware(app)
    with madcrow_signals.isolated(empty=True):
        madcrow_signals.signal("thing_happened")
        get(middleware)
    assert states == ["deferred"]


# Deferral


@pytest.mark.parametrize(
    ("status", "is_told"), [("200 OK", True), ("499 Left", True), ("500 Failed", False)]
)
def test_what_is_emitted_before_the_head_goes_out_with_it_or_is_dropped(
    dispatcher: EventDispatcher, heard: Heard, status: str, *, is_told: bool
) -> None:
    """Before the server gets the body; and so is what a failure emits after its head."""

    def app(environ: Any, start_response: Any) -> Any:
        dispatcher.emit("thing_happened", number=1)
        start_response(status, [])
        return Closing([b"part"], lambda: dispatcher.emit("thing_happened", number=2))

    body = Body(EventsMiddleware(app, dispatcher))
    assert heard.numbers() == [1] * is_told
    assert body.read() == b"part"
    body.close()
    assert heard.numbers() == [1, 2] * is_told


def test_an_application_that_raises_emits_nothing(
    dispatcher: EventDispatcher, heard: Heard
) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        dispatcher.emit("thing_happened", number=1)
        start_response("200 OK", [])
        raise LookupError

    with pytest.raises(LookupError):
        get(EventsMiddleware(app, dispatcher))
    assert heard == []


def test_a_strict_dispatcher_fails_the_request_before_its_head_is_sent(
    dispatcher: EventDispatcher, signal: EventSignal[Any]
) -> None:
    signal.subscribe(lambda: 1 // 0, on_error="raise")

    def app(environ: Any, start_response: Any) -> Any:
        dispatcher.emit("thing_happened", number=1)
        start_response("200 OK", [])
        return []

    with pytest.raises(ZeroDivisionError):
        EventsMiddleware(app, dispatcher)({}, lambda *head: print)


@pytest.mark.parametrize("is_closed", [False, True])
def test_what_closes_a_body_may_fail(
    dispatcher: EventDispatcher, heard: Heard, *, is_closed: bool
) -> None:
    def close() -> None:
        dispatcher.emit("thing_happened", number=1)
        if not is_closed:
            raise LookupError

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return Closing([], close)

    body = Body(EventsMiddleware(app, dispatcher))
    if is_closed:
        body.close()
    else:
        with pytest.raises(LookupError):
            body.close()
    assert heard.numbers() == [1] * is_closed


def test_200_concurrent_requests_keep_their_scopes_apart(
    dispatcher: EventDispatcher, heard: Heard
) -> None:
    together = threading.Barrier(20)

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        together.wait(10)
        number = int(environ["HTTP_X_REQUEST_ID"])
        dispatcher.emit("thing_happened", number=number)
        start_response("500 Failed" if number % 4 == 0 else "200 OK", [])
        yield b"part"
        dispatcher.emit("thing_happened", number=number)

    middleware = EventsMiddleware(app, dispatcher)
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda n: get(middleware, HTTP_X_REQUEST_ID=str(n)), range(200)))
    assert sorted(heard.numbers()) == sorted([n for n in range(200) if n % 4] * 2)
    assert all(int(it.context["request_id"]) == it.context["number"] for it in heard)


# Streams


def streaming(dispatcher: EventDispatcher, *, breaks: bool = False) -> Callable[..., Any]:
    """Return an application that emits 1 with the head, and 2 and 3 with the parts."""

    def app(environ: Any, start_response: Any) -> Any:
        dispatcher.emit("thing_happened", number=1)
        start_response("200 OK", [("Content-Length", "2")])
        return parts()

    def parts() -> Iterator[bytes]:
        for number in (2, 3):
            dispatcher.emit("thing_happened", number=number)
            yield b"-"
        if breaks:
            raise LookupError

    return EventsMiddleware(app, dispatcher)


def test_a_stream_emits_at_its_end(dispatcher: EventDispatcher, heard: Heard) -> None:
    body = Body(streaming(dispatcher))
    assert next(body.parts) == b"-"
    dispatcher.emit("thing_happened", number="between")
    assert heard.numbers() == [1, "between"]
    assert "request_id" not in heard[1].context
    assert body.read() == b"-"
    assert heard.numbers() == [1, "between", 2, 3]  # whoever has the end can count on it
    body.close()
    assert heard.numbers() == [1, "between", 2, 3]
    assert heard[-1].context["request_id"] == "r-17"


def test_a_stream_that_breaks_drops_what_it_has_emitted(
    dispatcher: EventDispatcher, heard: Heard
) -> None:
    body = Body(streaming(dispatcher, breaks=True))
    with pytest.raises(LookupError):
        body.read()
    body.close()
    assert heard.numbers() == [1]


@pytest.mark.parametrize("parts", [0, 1])
def test_a_client_that_leaves_is_no_failure(
    dispatcher: EventDispatcher, heard: Heard, parts: int
) -> None:
    body = Body(streaming(dispatcher))
    for _ in range(parts):
        next(body.parts)
    body.close()
    assert heard.numbers() == [1, 2][: 1 + parts]


def test_a_stream_may_be_read_in_another_thread(dispatcher: EventDispatcher, heard: Heard) -> None:
    body = Body(streaming(dispatcher))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(body.read).result(10) == b"--"
        pool.submit(body.close).result(10)
    assert heard.numbers() == [1, 2, 3]


def test_streams_of_one_thread_may_overlap(dispatcher: EventDispatcher, heard: Heard) -> None:
    one, other = Body(streaming(dispatcher)), Body(streaming(dispatcher))
    next(one.parts), next(other.parts)
    assert one.read() == b"-"
    assert heard.numbers() == [1, 1, 2, 3]
    other.close()
    one.close()
    assert heard.numbers() == [1, 1, 2, 3, 2]


def test_a_body_is_made_in_the_context_of_its_caller(dispatcher: EventDispatcher) -> None:
    """So that what an application sets there, and resets later, is found."""
    variable: ContextVar[str] = ContextVar("variable", default="nothing")

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        token = variable.set("set")
        start_response("200 OK", [])
        yield variable.get().encode()
        variable.reset(token)
        yield variable.get().encode()

    assert get(EventsMiddleware(app, dispatcher)) == b"setnothing"


@pytest.mark.parametrize(("status", "is_told"), [("200 OK", True), ("500 Failed", False)])
def test_the_head_may_come_with_the_first_part(
    dispatcher: EventDispatcher, heard: Heard, status: str, *, is_told: bool
) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        dispatcher.emit("thing_happened", number=1)
        start_response(status, [])
        yield b"first"
        yield b"last"

    body = Body(EventsMiddleware(app, dispatcher))
    assert next(body.parts) == b"first"
    assert heard.numbers() == [1] * is_told
    assert body.read() == b"last"
    body.close()
    assert heard.numbers() == [1] * is_told


def test_a_response_without_a_head_emits_nothing(dispatcher: EventDispatcher, heard: Heard) -> None:
    """As if a client has left before a late head."""

    def app(environ: Any, start_response: Any) -> Any:
        dispatcher.emit("thing_happened", number=1)
        return []

    body = Body(EventsMiddleware(app, dispatcher))
    body.close()
    assert heard == []


def test_a_head_may_be_replaced_by_that_of_a_failure(
    dispatcher: EventDispatcher, heard: Heard
) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b""
        dispatcher.emit("thing_happened", number=1)
        start_response("500 Failed", [], (LookupError, LookupError(), None))
        yield b"sorry"

    assert get(EventsMiddleware(app, dispatcher)) == b"sorry"
    assert heard == []


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_framework_may_have_a_context_for_handlers(
    dispatcher: EventDispatcher,
    signal: EventSignal[Any],
    monkeypatch: pytest.MonkeyPatch,
    is_gone: bool,
) -> None:
    """Its `emitting` is around whatever goes out: at the start, with the head, to the end.

    The end of the process comes without it if the application is gone.
    """
    ends: list[Callable[[], None]] = []
    monkeypatch.setattr("atexit.register", ends.append)
    is_emitting: ContextVar[bool] = ContextVar("is_emitting", default=False)
    seen: dict[Any, bool] = {}
    signal.subscribe(lambda number: seen.update({number: is_emitting.get()}))
    for name in ("system_startup", "system_shutdown"):

        @dispatcher.signals.signal(name).on()
        def hear(emission: Emission) -> None:
            seen[emission.event] = is_emitting.get()

    class Middleware(EventsMiddleware):
        @contextmanager
        def emitting(self) -> Iterator[None]:
            token = is_emitting.set(True)
            yield
            is_emitting.reset(token)

    def app(environ: Any, start_response: Any) -> Any:
        dispatcher.emit("thing_happened", number=1)
        start_response("200 OK", [])
        return Closing(parts(), lambda: dispatcher.emit("thing_happened", number=3))

    def parts() -> Iterator[bytes]:
        dispatcher.emit("thing_happened", number=2)
        yield b"part"

    middleware = Middleware(app, dispatcher)
    get(middleware)
    if is_gone:
        del middleware
        gc.collect()
    ends[0]()
    first = {"system_startup": True, 1: True, 2: True, 3: True}
    assert seen == {**first, "system_shutdown": not is_gone}


@pytest.mark.parametrize("is_in_c", [False, True])
def test_a_server_gets_its_own_wrapper_of_a_file(
    dispatcher: EventDispatcher, heard: Heard, *, is_in_c: bool
) -> None:
    """It may send the file without reading it; what closes it is still a part of the request."""

    class Wrapper:
        __slots__ = ()

        def __iter__(self) -> Iterator[bytes]:
            return iter([b"file"])

        def close(self) -> None:
            dispatcher.emit("thing_happened", number=2)

    class OpenWrapper(Wrapper):
        """One that lets us see how it is closed."""

    def app(environ: Any, start_response: Any) -> Wrapper:
        dispatcher.emit("thing_happened", number=1)
        start_response("200 OK", [])
        return kind()

    kind = Wrapper if is_in_c else OpenWrapper
    body = Body(EventsMiddleware(app, dispatcher), **{"wsgi.file_wrapper": kind})
    assert isinstance(body.body, Wrapper) == (not is_in_c)
    assert heard.numbers() == [1]
    assert body.read() == b"file"
    body.close()
    assert heard.numbers() == [1, 2]
    assert {it.context["request_id"] for it in heard} == {"r-17"}


# Applications in applications


def test_a_mounted_application_is_a_part_of_the_request(
    dispatcher: EventDispatcher, heard: Heard
) -> None:
    """Also one whose events have another dispatcher: it has the same request id."""
    other = EventDispatcher(SignalRegistry())

    @other.signals.signal("thing_happened").on()
    def hear(emission: Emission) -> None:
        heard.append(emission)

    def app(environ: Any, start_response: Any) -> list[bytes]:
        for it in (dispatcher, other):
            it.emit("thing_happened", number=1)
        assert heard == []
        start_response("200 OK", [])
        return []

    def between(environ: Any, start_response: Any) -> Any:
        dispatcher.emit("thing_happened", number=0)
        inner = EventsMiddleware(EventsMiddleware(app, dispatcher), other)
        return inner(environ, start_response)

    get(EventsMiddleware(between, dispatcher), HTTP_X_REQUEST_ID="")
    assert len(heard) == 3
    assert len({it.context["request_id"] for it in heard}) == 1


def test_an_environment_may_be_given_to_another_application(
    dispatcher: EventDispatcher, heard: Heard
) -> None:
    """As where several are tried in turn: it has a request id of its own again."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        dispatcher.emit("thing_happened", number=1)
        start_response("200 OK", [], exc_info=None)
        return []

    def cascade(environ: Any, start_response: Any) -> Any:
        for _ in range(2):
            body = EventsMiddleware(app, dispatcher)(environ, start_response)
        return body

    get(cascade)
    assert [it.context["request_id"] for it in heard] == ["r-17"] * 2


# The process


def app_of_nothing(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return []


def test_an_application_within_another_starts_once(
    dispatcher: EventDispatcher, signals: SignalRegistry
) -> None:
    starts: list[int] = []
    signals.signal("system_startup").subscribe(lambda process_id: starts.append(process_id))
    get(EventsMiddleware(EventsMiddleware(app_of_nothing, dispatcher), dispatcher))
    assert starts == [os.getpid()]


def test_requests_that_begin_together_announce_one_start(
    dispatcher: EventDispatcher, signals: SignalRegistry
) -> None:
    """One of them comes first, while the other has seen that there was none."""

    class Turnstile:
        def __enter__(self) -> None:
            process.__dict__["_lock"] = lock
            get(middleware)

        def __exit__(self, *_: object) -> None: ...

    starts: list[tuple[str | None, int]] = []

    @signals.signal("system_startup").on()
    def start(version: str | None, process_id: int) -> None:
        starts.append((version, process_id))

    middleware = EventsMiddleware(app_of_nothing, dispatcher, version="1.2")
    process = process_of(middleware)
    lock, process.__dict__["_lock"] = process.__dict__["_lock"], Turnstile()
    get(middleware)
    assert starts == [("1.2", os.getpid())]


@pytest.mark.parametrize("in_a_thread", [False, True])
def test_a_handler_of_the_start_may_make_requests_and_may_fail(
    dispatcher: EventDispatcher, signals: SignalRegistry, *, in_a_thread: bool
) -> None:
    """To warm a cache, for example; the process has started once."""
    starts: list[int] = []

    @signals.signal("system_startup").on(on_error="raise")
    def warm(process_id: int) -> None:
        starts.append(process_id)
        if in_a_thread:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(get, middleware).result(10)
        else:
            get(middleware)
        raise LookupError

    middleware = EventsMiddleware(app_of_nothing, dispatcher)
    with pytest.raises(LookupError):
        get(middleware)
    get(middleware)
    assert starts == [os.getpid()]


def test_the_exit_keeps_no_application(signals: SignalRegistry) -> None:
    dispatcher = EventDispatcher(signals)
    middleware = EventsMiddleware(app_of_nothing, dispatcher)
    get(middleware)
    gone = weakref.ref(middleware), weakref.ref(dispatcher)
    del middleware, dispatcher
    signals.dispatcher = EventDispatcher(signals)
    gc.collect()
    assert [it() for it in gone] == [None, None]


@pytest.mark.parametrize("timeout", [0, -1, "2", True])
def test_a_time_that_is_none_is_refused_at_once(timeout: Any) -> None:
    with pytest.raises(InvalidOptionError, match="drain_timeout must be a number of seconds"):
        EventsMiddleware(app_of_nothing, drain_timeout=timeout)


PROGRAM = """
import os, time
from madcrow_events import on_event
from madcrow_events.contrib.wsgi import EventsMiddleware

@on_event("system_startup")
def startup(process_id):
    print("startup", process_id == os.getpid(), flush=True)

@on_event("system_shutdown", background=True)
def shutdown(uptime):
    time.sleep(0.2)
    print("shutdown", uptime < 60, flush=True)

def app(environ, start_response):
    start_response("200 OK", [])
    return []

def get():
    app({}, lambda *head: print)

app = EventsMiddleware(app)
"""


def output_of(program: str) -> tuple[list[str], str]:
    command = [sys.executable, "-c", PROGRAM + program]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.splitlines(), done.stderr


def test_the_first_request_announces_the_start_and_the_exit_the_end() -> None:
    told = output_of("get(); print('served'); get()")
    assert told == (["startup True", "served", "shutdown True"], "")
    assert output_of("") == ([], "")


def test_a_handler_of_the_end_that_raises_is_told(
    dispatcher: EventDispatcher,
    signals: SignalRegistry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ends: list[Callable[[], None]] = []
    monkeypatch.setattr("atexit.register", ends.append)
    get(EventsMiddleware(app_of_nothing, dispatcher))
    ends[-1]()
    assert caplog.text == ""  # there is no such event
    signals.signal("system_shutdown").subscribe(lambda: 1 // 0, on_error="raise")
    ends[-1]()
    assert "a handler of system_shutdown failed: ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("process_id", [None, -1])
def test_work_that_outlasts_the_patience_of_the_end_is_told(
    dispatcher: EventDispatcher,
    signal: EventSignal[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    process_id: int | None,
) -> None:
    """A server may end the process before the package has waited; not of another process."""
    ends: list[Callable[[], None]] = []
    monkeypatch.setattr("atexit.register", ends.append)
    told: list[float] = []
    dispatcher.signals.signal("system_shutdown").subscribe(lambda uptime: told.append(uptime))
    may_go_on = threading.Event()
    signal.subscribe(lambda: may_go_on.wait(10), background=True)
    get(EventsMiddleware(app_of_nothing, dispatcher, drain_timeout=0.01))
    dispatcher.emit("thing_happened")
    if process_id is not None:
        monkeypatch.setattr("os.getpid", lambda: process_id)
    ends[0]()
    assert ("still pending 0.01 s after the end" in caplog.text) is (process_id is None)
    assert len(told) == (process_id is None)
    may_go_on.set()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork")
@pytest.mark.parametrize("asks", [True, False])
def test_a_forked_process_has_a_start_and_an_end_of_its_own(*, asks: bool) -> None:
    program = f"get()\nif os.fork():\n    os.wait()\nelif {asks}:\n    get()"
    told = ["startup True", "shutdown True"]
    assert output_of(program) == ([told[0], *told * asks, told[1]], "")
