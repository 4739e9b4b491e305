"""What this package writes, and never writes (G1)."""

from __future__ import annotations

import functools
import io
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    ContextTypeError,
    ContextValidationError,
    Emission,
    EventDispatcher,
    GenericEventContext,
    HandlerErrors,
    HandlerGroup,
    InvalidOptionError,
    LoginEventContext,
    LogoutEventContext,
    SignalRegistry,
    user_logged_in,
)
from support.inside import handler_name, printable, type_name

CANARIES = {"password": "canary-password", "email": "canary@example.com", "token": "canary-token"}


class Account(BaseEventContext):
    password: str
    email: str
    token: str
    count: int = 0


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Everything the package logs, from DEBUG up, as a plain handler formats it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    logger = logging.getLogger("madcrow_events")
    logger.addHandler(handler)
    before = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        yield stream
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)


@pytest.mark.guarantee("G1")
def test_debug_tells_registrations_emissions_executions_and_errors(written: io.StringIO) -> None:
    def greet() -> None: ...

    def broken() -> None:
        raise ValueError("on purpose")

    user_logged_in.subscribe(greet)
    user_logged_in.subscribe(broken)
    user_logged_in.subscribe(lambda: None, when=lambda context: False)
    emission = EventDispatcher().emit("user_logged_in", email="e")
    text = written.getvalue()
    assert "greet subscribed to user_logged_in" in text
    assert "user_logged_in emitted by EventSignal to 3 handlers" in text
    assert "greet of user_logged_in returned after 0." in text
    assert "broken of user_logged_in raised after 0." in text
    assert "of user_logged_in skipped" in text
    assert "ERROR madcrow_events handler" in text
    assert "failed: ValueError" in text
    assert len(emission.results) == 1
    assert len(emission.failures) == 1


@pytest.mark.guarantee("G1")
def test_debug_can_be_turned_on_and_off_while_the_program_runs() -> None:
    """Through any of the ways that logging has, also after the logger was asked before."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root, logger = logging.getLogger(), logging.getLogger("madcrow_events")
    before = root.level
    root.addHandler(handler)

    def emitted() -> bool:
        stream.seek(0)
        stream.truncate()
        EventDispatcher().emit("user_logged_in")
        return "user_logged_in emitted" in stream.getvalue()

    try:
        assert not emitted()
        root.setLevel(logging.DEBUG)
        assert emitted()
        logging.disable(logging.DEBUG)
        assert not emitted()
        logging.disable(logging.NOTSET)
        assert emitted()
        logger.disabled = True
        assert not emitted()
        logger.disabled = False
        logger.setLevel(logging.INFO)
        assert not emitted()
        logger.setLevel(logging.NOTSET)
        assert emitted()
        root.setLevel(logging.WARNING)
        assert not emitted()
    finally:
        root.setLevel(before)
        root.removeHandler(handler)


@pytest.mark.guarantee("G1")
def test_debug_changes_no_outcome(written: io.StringIO, signals: SignalRegistry) -> None:
    class Owner:
        def handle(self, context: LoginEventContext) -> str:
            return context.email

    owner = Owner()
    signal = signals.signal("user_logged_in", context=LoginEventContext)
    signal.subscribe(owner.handle)
    signal.subscribe(lambda sender, **context: context["email"])
    signals.subscribe("user_*", lambda emission_or_not=None, **context: context["email"])
    dispatcher = EventDispatcher(signals)
    for emission in (
        dispatcher.emit_typed(signal, LoginEventContext(user_id=1, email="e")),
        dispatcher.emit(signal, user_id=1, email="e"),
    ):
        assert [result.value for result in emission.results] == ["e", "e", "e"]
        assert emission.results[0].handler == owner.handle


@pytest.mark.guarantee("G1")
def test_no_value_of_a_context_is_in_anything_that_is_written(
    written: io.StringIO, signals: SignalRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    texts: list[str] = []
    signal = signals.signal("account_made", context=Account)
    other = signals.signal("other_thing", context=LogoutEventContext)

    def failing(sender: Any, **context: Any) -> None:
        raise ValueError("a fixed text")

    def by_name(missing_thing: str) -> None: ...

    def typed(context: Account) -> str:
        return context.password

    def of_emission(emission: Emission[Any]) -> None:
        texts.append(repr(emission))

    def looping(emission: Emission[Any]) -> None:
        raising.emit(signal, sender=CANARIES["token"], **CANARIES)

    signal.subscribe(failing)
    signal.subscribe(typed)
    signal.subscribe(of_emission)
    signals.signal("untyped").subscribe(by_name)
    partial = functools.partial(lambda password, **_: 1 / 0, CANARIES["password"])
    texts.append(repr(signal.subscribe(partial)))
    dispatcher = EventDispatcher(signals)
    raising = dispatcher.with_options(on_error="raise", validate=True)
    generic = GenericEventContext(event_type="account_made", data={**CANARIES, "count": "canary"})

    def collect(emit: Any) -> None:
        try:
            emission = emit()
        except Exception as error:
            texts.extend([str(error), repr(error)])
            if isinstance(error, HandlerErrors):
                texts.extend(str(inner) for inner in error.exceptions)
        else:
            texts.extend([repr(emission), repr(emission.results), repr(emission.failures)])
            texts.extend(str(failure.exception) for failure in emission.failures)

    for policy in (dispatcher, raising):
        collect(lambda: policy.emit(signal, **CANARIES))
        collect(lambda: policy.emit(signal, sender=CANARIES["token"], **CANARIES))
        collect(lambda: policy.emit(signal, **CANARIES, extra="canary"))
        collect(lambda: policy.emit(signal, password=["canary"], email={"canary": "canary"}))
        collect(lambda: policy.emit(signal, **CANARIES, count="canary"))
        collect(lambda: policy.emit("untyped", **CANARIES))
        collect(lambda: policy.emit_typed(signal, Account(**CANARIES)))
        collect(lambda: policy.emit_typed(other, Account(**CANARIES)))
        collect(lambda: policy.emit_typed(signal, generic))
        collect(
            lambda: policy.emit_typed("untyped", GenericEventContext(event_type="x", data=CANARIES))
        )
    with signal.subscribe(looping):
        collect(lambda: dispatcher.emit(signal, **CANARIES))
    captured = capsys.readouterr()
    everything = "\n".join([*texts, written.getvalue(), captured.out, captured.err])
    assert "ValueError" in everything
    assert "ContextValidationError" in everything
    assert "ContextTypeError" not in written.getvalue()
    assert "EmissionDepthError" in everything
    assert "canary" not in everything


@pytest.mark.guarantee("G1")
def test_a_validators_own_text_is_not_repeated(signals: SignalRegistry) -> None:
    from pydantic import field_validator

    class Talkative(BaseEventContext):
        password: str

        @field_validator("password")
        @classmethod
        def check(cls, value: str) -> str:
            raise ValueError(f"{value} is too short")

    signals.signal("talk", context=Talkative)
    with pytest.raises(ContextValidationError) as caught:
        EventDispatcher(signals, validate=True).emit("talk", password="canary")
    assert str(caught.value) == (
        "talk does not fit Talkative: password: has the right type, and a value that is not "
        "allowed (value_error)"
    )


@pytest.mark.guarantee("G1")
def test_a_text_of_an_exception_forges_no_line_of_the_log(
    written: io.StringIO, signals: SignalRegistry
) -> None:
    def forging() -> None:
        raise ValueError("x\nCRITICAL root forged\r\x1b[31mred\u2028CRITICAL root forged too")

    class Odd:
        __qualname__ = "odd\nCRITICAL root forged"

        def __call__(self) -> None:
            raise type("Forged\nCRITICAL root forged", (Exception,), {})

    signal = signals.signal("thing_happened")
    signal.subscribe(forging)
    signal.subscribe(Odd())
    EventDispatcher(signals).emit(signal)
    text = written.getvalue()
    lines = text.split("\n")
    assert any("ValueError: x" in line for line in lines)
    for line in lines:
        assert line.startswith(("DEBUG madcrow", "ERROR madcrow", "  | ")) or not line
        assert line.isprintable() or not line


@pytest.mark.guarantee("G1")
def test_tracebacks_are_logged_unless_the_dispatcher_leaves_them_out(
    signals: SignalRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    def failing() -> None:
        raise ValueError("the author's text")

    signals.signal("thing_happened").subscribe(failing)
    dispatcher = EventDispatcher(signals)
    dispatcher.emit("thing_happened")
    assert "the author's text" in caplog.text
    record = caplog.records[-1]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
    caplog.clear()
    dispatcher.with_options(log_tracebacks=False).emit("thing_happened")
    assert "failed: ValueError" in caplog.text
    assert "the author's text" not in caplog.text
    assert not caplog.records[-1].exc_info


@pytest.mark.guarantee("G1")
def test_nothing_is_formatted_for_a_logger_that_is_off(
    signals: SignalRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    def failing() -> None:
        raise ValueError

    signals.signal("thing_happened").subscribe(failing)
    with caplog.at_level(logging.CRITICAL, logger="madcrow_events"):
        assert len(EventDispatcher(signals).emit("thing_happened").failures) == 1
    assert not caplog.records


class Unshowable(Exception):
    """An exception that cannot be formatted on any Python."""

    @property
    def __notes__(self) -> Any:
        raise RuntimeError

    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise RuntimeError


class Proxy:
    """Raises for every name, as a proxy without a target does."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __call__(self, sender: Any, **context: Any) -> None:
        raise ValueError


class BrokenFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        raise RuntimeError


@pytest.mark.guarantee("F1")
def test_a_failure_that_cannot_be_logged_is_isolated_all_the_same(
    signals: SignalRegistry,
) -> None:
    def odd() -> None:
        raise SyntaxError("x", ("f", 1, "bad", "text"))

    def unshowable() -> None:
        raise Unshowable

    calls: list[str] = []
    proxy = Proxy()
    announced: list[str] = []
    signals.subscribe("handler_failed", lambda handler_name: announced.append(handler_name))
    signal = signals.signal("thing_happened")
    signal.subscribe(odd)
    signal.subscribe(unshowable)
    signal.connect(proxy)
    signal.subscribe(lambda: calls.append("ran"))
    logger = logging.getLogger("madcrow_events")
    broken = BrokenFilter()
    for number in (1, 2):
        assert len(EventDispatcher(signals).emit(signal).failures) == 3
        assert len(calls) == number
        logger.addFilter(broken)
    logger.removeFilter(broken)
    assert announced[2].endswith("Proxy")


@pytest.mark.guarantee("G1")
def test_names_that_an_application_gives_are_made_printable() -> None:
    with pytest.raises(InvalidOptionError) as caught:
        user_logged_in.subscribe(print, **{"z\nERROR forged": 1})  # type: ignore[arg-type]
    assert str(caught.value).isprintable()
    assert repr(HandlerGroup("a\nb")) == "<HandlerGroup a\\nb, handlers: 0>"


def test_a_context_of_another_class_is_named_by_its_class_only(signals: SignalRegistry) -> None:
    signals.signal("account_made", context=Account)
    with pytest.raises(ContextTypeError) as caught:
        EventDispatcher(signals).emit_typed("account_made", CANARIES)  # type: ignore[call-overload]
    assert "canary" not in str(caught.value)
    assert "not dict" in str(caught.value)


def test_handlers_are_named_by_module_and_qualified_name() -> None:
    class Handler:
        def method(self) -> None: ...

        def __call__(self) -> None: ...

    here = "tests.unit.test_logs.test_handlers_are_named_by_module_and_qualified_name.<locals>"
    assert handler_name(Handler().method) == f"{here}.Handler.method"
    assert handler_name(Handler()) == f"{here}.Handler"
    assert handler_name(functools.partial(Handler().method)) == f"{here}.Handler.method"
    assert handler_name(print) == "builtins.print"
    assert handler_name([].append) == "list.append"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\nb\x1b", "a\\nb\\x1b"),
        ("é\u2028", "é\\u2028"),
        ("x" * 300, "x" * 200 + "..."),
    ],
)
def test_text_from_elsewhere_is_made_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


class Unnamed(type):
    """A metaclass whose classes have no names that can be asked for."""

    def __getattribute__(cls, name: str) -> Any:
        """Refuse to name it."""
        if name in ("__name__", "__qualname__", "__module__"):
            raise ValueError("canary")
        return super().__getattribute__(name)


def test_a_class_whose_own_name_raises_is_named_all_the_same(
    signals: SignalRegistry, dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    """As a sender, a result, an exception, a handler and a context."""

    class Thing(metaclass=Unnamed):
        __slots__ = ()

        def __call__(self) -> Any:
            return self

    class Odd(ValueError, metaclass=Unnamed):
        pass

    thing: Any = Thing()
    assert type_name(Thing) == "Thing"
    assert handler_name(thing).endswith("Thing")
    caplog.set_level("DEBUG", logger="madcrow_events")
    signals.signal("order_placed").subscribe(thing)

    def failing() -> None:
        raise Odd

    signals.subscribe("order_placed", failing)
    emission = dispatcher.emit("order_placed", thing)
    assert "Thing" in repr(emission.results[0])
    assert "Odd" in repr(emission.failures[0])
    assert "canary" not in caplog.text


def test_types_are_named_as_they_are_written() -> None:
    assert type_name(int) == "int"
    assert type_name(float | None) == "float | None"
    assert type_name(Any) == "Any"


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize("text", ["a" * 10**6, "\n" * 10**6, "\U000e0001" * 10**6, "a\nb" * 10**5])
def test_an_exception_with_a_long_text_writes_its_beginning_and_end_only(
    written: io.StringIO, dispatcher: EventDispatcher, text: str
) -> None:
    def fail(text: str) -> None:
        raise ValueError(f"begin {text} end")

    signal = dispatcher.signals.signal("thing_happened")
    signal.subscribe(fail)
    assert not dispatcher.emit(signal, text=text).ok
    lines = written.getvalue().splitlines()
    length, longest = sum(map(len, lines)), max(map(len, lines))
    assert (length < 400_000, longest < 25_000) == (True, True), (length, longest)
    assert sum("ValueError: begin" in line for line in lines) == 1
    assert sum("characters left out ..." in line for line in lines) == 1


@pytest.mark.guarantee("G1")
def test_a_context_with_many_problems_names_the_first_and_counts_the_others(
    dispatcher: EventDispatcher,
) -> None:
    dispatcher.signals.signal("talk", context=LoginEventContext)
    checking = dispatcher.with_options(validate=True)
    unknown = {f"field_{number}": number for number in range(10_000)}
    with pytest.raises(ContextValidationError, match="field_0: not a field") as caught:
        checking.emit("talk", user_id=1, email="a@b.c", **unknown)
    assert str(caught.value).endswith("; and 9980 more")
    assert len(str(caught.value)) < 2000
    assert len(caught.value.problems) == 10_000


@pytest.mark.guarantee("G2")
def test_a_traceback_of_many_causes_is_formatted_while_none_of_them_is_handled(
    signal: Any, dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    """Each exception within `traceback` would look through all of them."""
    handled: list[Any] = []

    class Failure(Exception):
        def __str__(self) -> str:
            handled.append(sys.exc_info()[1])
            return "shown"

    @signal.on()
    def fail(**context: Any) -> None:
        try:
            context["absent"]
        except KeyError:
            raise Failure from None

    (failure,) = dispatcher.emit(signal).failures
    assert failure.exception.__context__ is not None
    assert "Failure: shown" in caplog.text
    assert [it.__context__ for it in handled] == [None] * len(handled) != []


@pytest.mark.parametrize(("level", "is_made"), [(logging.ERROR, True), (logging.CRITICAL, False)])
def test_the_text_of_a_traceback_is_made_only_if_a_handler_may_write_it(
    signals: SignalRegistry,
    dispatcher: EventDispatcher,
    monkeypatch: pytest.MonkeyPatch,
    level: int,
    is_made: bool,
) -> None:
    """It takes long. A filter of the logger sees the record all the same."""
    records: list[logging.LogRecord] = []

    def note(record: logging.LogRecord) -> bool:
        records.append(record)
        return True

    logger, handler = logging.getLogger("madcrow_events"), logging.StreamHandler(io.StringIO())
    handler.setLevel(level)
    for name, value in {"handlers": [handler], "propagate": False, "filters": [note]}.items():
        monkeypatch.setattr(logger, name, value)
    signals.signal("ping").subscribe(lambda: 1 / 0)
    dispatcher.emit("ping")
    (record,) = records
    assert (record.exc_text is not None) is is_made
    assert record.exc_info


@pytest.mark.guarantee("G1")
def test_a_tool_that_takes_the_place_of_the_handlers_gets_the_indented_text(
    signals: SignalRegistry, dispatcher: EventDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    records: list[logging.LogRecord] = []
    logger = logging.getLogger("madcrow_events")
    monkeypatch.setattr(logger, "callHandlers", records.append)
    monkeypatch.setattr(logger, "handlers", [logging.NullHandler()])
    monkeypatch.setattr(logger, "propagate", False)

    def fail() -> None:
        raise ValueError("one\nERROR:forged")

    signals.signal("ping").subscribe(fail)
    dispatcher.emit("ping")
    (record,) = records
    assert "\nERROR:forged" not in logging.Formatter().format(record)
