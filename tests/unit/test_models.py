"""Contexts: the base, the built-in ones, the generic one (C1, C2, C3)."""

from __future__ import annotations

import enum
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar
from uuid import UUID

import pydantic.main
import pytest
from pydantic import AliasPath, Field, ValidationError, create_model
from pydantic.alias_generators import to_camel
from pydantic_core.core_schema import any_schema

import madcrow_events
from madcrow_events import (
    BaseEventContext,
    ContextModelError,
    ContextTypeError,
    ContextValidationError,
    EventDispatcher,
    GenericEventContext,
    LoginEventContext,
    LoginFailedEventContext,
    SignalConflictError,
    SignalRegistry,
    SystemShutdownEventContext,
    madcrow_signals,
)
from madcrow_events.testing.strategies import simplest
from support.aliases import BY_ALIAS
from support.built_in import BUILT_IN, Row
from support.inside import building


class OrderPlaced(BaseEventContext):
    order_id: int
    note: str = ""

    @cached_property
    def label(self) -> str:
        return f"order {self.order_id}"


@pytest.mark.guarantee("C1")
def test_a_context_says_when_it_happened_in_utc() -> None:
    before = datetime.now(UTC)
    context = BaseEventContext()
    assert before <= context.timestamp <= datetime.now(UTC)
    assert context.timestamp.tzinfo is UTC


@pytest.mark.guarantee("C1")
def test_another_zone_is_kept_as_the_same_moment_in_utc() -> None:
    moment = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    kept = BaseEventContext(timestamp=moment).timestamp
    assert kept == moment
    assert kept.utcoffset() == timedelta(0)


@pytest.mark.guarantee("C1")
def test_a_naive_timestamp_is_refused_with_what_to_write() -> None:
    with pytest.raises(ValidationError, match=r"no time zone.*datetime\.now\(UTC\)"):
        BaseEventContext(timestamp=datetime(2026, 1, 1))  # noqa: DTZ001


@pytest.mark.guarantee("C1")
def test_a_context_is_frozen_and_closed() -> None:
    context = LoginEventContext(user_id=1, email="a@b.c")
    with pytest.raises(ValidationError, match="frozen") as caught:
        context.email = "canary-4711"  # type: ignore[misc]
    assert "canary" not in str(caught.value)
    with pytest.raises(ValidationError) as caught:
        context.nickname = "canary-4711"  # type: ignore[attr-defined]
    assert "canary" not in str(caught.value)


@pytest.mark.guarantee("C1")
def test_a_moment_that_utc_cannot_show_is_refused() -> None:
    with pytest.raises(ValidationError, match="outside of the years 1 to 9999"):
        BaseEventContext(timestamp="0001-01-01T00:00:00+01:00")  # type: ignore[arg-type]


class WithPrivate(BaseEventContext):
    _note: str = ""


@pytest.mark.guarantee("C1")
def test_a_private_attribute_of_a_context_is_nobodys_field() -> None:
    context = WithPrivate()
    context._note = "set"
    assert context._note == "set"
    assert "_note" not in context._keywords()


@pytest.mark.guarantee("C1")
def test_a_derived_context_with_a_reserved_field_is_refused_when_it_is_emitted(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    class Sneaky(OrderPlaced):
        sender: str = "x"

    signals.signal("order_placed", context=OrderPlaced)
    with pytest.raises(ContextModelError, match="'sender'"):
        dispatcher.emit_typed("order_placed", Sneaky(order_id=1))
    with pytest.raises(ValidationError, match="Extra inputs"):
        LoginEventContext(user_id=1, email="a@b.c", nickname="x")  # type: ignore[call-arg]


@pytest.mark.guarantee("C1")
@pytest.mark.guarantee("G1")
def test_a_validation_error_does_not_show_what_was_given() -> None:
    with pytest.raises(ValidationError) as caught:
        LoginEventContext(user_id=1, email=["canary-4711"], password="canary-4712")  # type: ignore[arg-type, call-arg]
    assert "canary" not in str(caught.value)
    assert "canary" not in repr(caught.value)


@pytest.mark.guarantee("C1")
@pytest.mark.parametrize("field", ["sender", "self"])
def test_a_model_whose_field_the_call_needs_is_refused_as_its_signal_is_declared(
    signals: SignalRegistry, field: str
) -> None:
    model: Any = create_model("Bad", __base__=BaseEventContext, **{field: (str, "x")})  # type: ignore[call-overload]
    with pytest.raises(ContextModelError, match=f"'{field}'.*rename it") as caught:
        signals.signal("order_placed", context=model)
    assert caught.value.model is model
    assert "order_placed" not in signals


@pytest.mark.parametrize(
    "model", [dict, "LoginEventContext", LoginEventContext(user_id=1, email="")]
)
def test_a_context_that_is_no_model_class_is_refused(signals: SignalRegistry, model: Any) -> None:
    with pytest.raises(ContextModelError, match="derived from BaseEventContext"):
        signals.signal("order_placed", context=model)


@pytest.mark.guarantee("N2")
def test_a_model_in_the_place_of_the_description_is_refused(signals: SignalRegistry) -> None:
    with pytest.raises(ContextModelError, match=r"signal\('order_placed', context=OrderPlaced\)"):
        signals.signal("order_placed", OrderPlaced)  # type: ignore[call-overload]
    assert not signals


@pytest.mark.guarantee("C2")
def test_the_built_in_events_are_declared_with_their_contexts() -> None:
    expected = {name: row.context for name, row in BUILT_IN.items()}
    declared = {
        name: signal.context_model.__name__
        for name, signal in madcrow_signals.items()  # type: ignore[attr-defined]
    }
    assert declared == expected
    for name in expected:
        signal = getattr(madcrow_events, name)
        assert signal is madcrow_signals[name]
        assert signal.doc


@pytest.mark.guarantee("C2")
@pytest.mark.parametrize("row", [row for row in BUILT_IN.values() if row.emitter])
def test_each_event_with_helpers_has_an_emitter_and_a_decorator_of_its_own(row: Row) -> None:
    event, emitter, decorator, _ = row
    emit, on = getattr(madcrow_events, emitter), getattr(madcrow_events, decorator)
    assert (emit.__name__, on.__name__) == (emitter, decorator)
    assert event in emit.__doc__
    assert event in on.__doc__
    model = madcrow_signals[event].context_model
    assert model is not None
    seen: list[Any] = []

    @on()
    def handler(sender: Any, **context: Any) -> None:
        seen.append((sender, context["timestamp"]))

    context = simplest(model)
    emission = emit(context, "somebody")
    assert emission.event == event
    assert seen == [("somebody", context.timestamp)]


class Text(str):
    __slots__ = ()


class Number(enum.IntEnum):
    SEVEN = 7


class Special(UUID):
    pass


@pytest.mark.guarantee("C2")
@pytest.mark.parametrize(
    "user_id",
    [
        UUID(int=7),
        7,
        "7",
        str(UUID(int=7)),
        Text("7"),
        Number.SEVEN,
        Special(int=7),
        10**400,
    ],
    ids=repr,
)
def test_an_account_id_keeps_its_type(user_id: object) -> None:
    kept = LoginEventContext(user_id=user_id, email="e").user_id  # type: ignore[arg-type]
    assert kept == user_id
    assert type(kept) is type(user_id)


@pytest.mark.guarantee("C2")
@pytest.mark.parametrize(
    "user_id", [True, 7.0, b"7", bytearray(b"7"), Decimal(7), UUID(int=7).bytes, None], ids=repr
)
def test_what_is_no_account_id_is_refused_and_not_converted(
    signals: SignalRegistry, dispatcher: EventDispatcher, user_id: Any
) -> None:
    for model in (LoginEventContext, madcrow_events.AccountBannedEventContext):
        with pytest.raises(ValidationError, match="an id is a UUID, an int or a str"):
            model(user_id=user_id, email="e")
    signals.signal("user_logged_in", context=LoginEventContext)
    strict = dispatcher.with_options(validate=True)
    with pytest.raises(
        ContextValidationError, match=r"user_id: must be uuid\.UUID \| int \| str, got"
    ):
        strict.emit("user_logged_in", user_id=user_id, email="e")


@pytest.mark.guarantee("C2")
@pytest.mark.parametrize("user_id", [UUID(int=7), 7, "7"])
def test_an_account_id_comes_back_from_json(user_id: Any) -> None:
    context = LoginEventContext(user_id=user_id, email="e")
    read = LoginEventContext.model_validate_json(context.model_dump_json())
    assert read == context
    assert type(read.user_id) is type(user_id)


@pytest.mark.guarantee("C2")
def test_durations_are_seconds_and_may_be_whole_numbers() -> None:
    assert SystemShutdownEventContext(uptime=3).uptime == 3.0
    assert LoginEventContext(user_id=1, email="e", session_duration=1800).session_duration == 1800.0


@pytest.mark.guarantee("C2")
def test_a_failed_login_counts_itself_unless_told_otherwise() -> None:
    assert LoginFailedEventContext(email="e", failure_reason="r").attempt_count == 1


@pytest.mark.guarantee("C2")
def test_handler_failed_is_declared_in_any_registry_when_first_needed(
    signals: SignalRegistry,
) -> None:
    assert "handler_failed" not in signals
    assert "handler_failed" not in madcrow_signals
    signals.subscribe("handler_failed", lambda event_name, handler_name, exception_type: None)
    model = signals["handler_failed"].context_model
    assert model is madcrow_events.HandlerFailedEventContext
    assert signals.signal("handler_failed").context_model is model
    with pytest.raises(SignalConflictError):
        SignalRegistry().signal("handler_failed", context=LoginEventContext)


@pytest.mark.guarantee("C3")
def test_a_generic_context_gives_its_data_as_keywords_and_its_fields_win(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    signals.signal("custom-event")
    seen: list[dict[str, Any]] = []
    signals.subscribe("custom_event", lambda sender, **context: seen.append(context))
    context = GenericEventContext(
        event_type="custom_event",
        data={"custom_field": "value", "additional_data": 123, "ip_address": "loses"},
        ip_address="wins",
    )
    assert dispatcher.emit_typed("custom_event", context).ok
    (keywords,) = seen
    assert keywords["custom_field"] == "value"
    assert keywords["additional_data"] == 123
    assert keywords["ip_address"] == "wins"
    assert keywords["event_type"] == "custom_event"
    assert keywords["data"] is context.data


@pytest.mark.guarantee("C3")
def test_a_typed_handler_gets_its_model_from_a_generic_context(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    signals.signal("order_placed", context=OrderPlaced)
    seen: list[OrderPlaced] = []

    def handler(context: OrderPlaced) -> None:
        seen.append(context)

    signals.subscribe("order_placed", handler)
    generic = GenericEventContext(event_type="order-placed", data={"order_id": "7"}, request_id="r")
    assert dispatcher.emit_typed("order_placed", generic).ok
    assert seen == [OrderPlaced(order_id=7, request_id="r", timestamp=generic.timestamp)]
    bad = GenericEventContext(event_type="order_placed", data={"order": 7})
    (failure,) = dispatcher.emit_typed("order_placed", bad).failures
    assert isinstance(failure.exception, ContextValidationError)


class Camel(BaseEventContext, alias_generator=to_camel):
    model_config: ClassVar[Any] = BY_ALIAS
    order_id: int


class InHeaders(BaseEventContext):
    order_id: int
    request_id: str | None = Field(None, validation_alias=AliasPath("headers", "id"))


class InHeadersOnly(InHeaders):
    model_config: ClassVar[Any] = BY_ALIAS


@pytest.mark.guarantee("C3")
@pytest.mark.parametrize(
    ("model", "data", "request_id"),
    [
        (Camel, {"orderId": 7}, "r"),
        (Camel, {"orderId": 7, "requestId": "data"}, "r"),
        (Camel, {"orderId": 7, "requestId": "data"}, None),
        (InHeaders, {"order_id": 7}, "r"),
        (InHeaders, {"order_id": 7, "headers": {"id": "data"}}, None),
        (InHeadersOnly, {"order_id": 7, "headers": {"id": "data"}}, "lost"),
    ],
)
def test_a_generic_context_gives_a_model_its_fields_as_that_takes_them(
    signals: SignalRegistry,
    dispatcher: EventDispatcher,
    model: Any,
    data: dict[str, Any],
    request_id: str | None,
) -> None:
    """What it was not given itself may stand in the data, by an alias."""
    given = {} if request_id is None else {"request_id": request_id}
    seen: list[Any] = []

    def handler(context: Any) -> None:
        seen.append((context.order_id, context.request_id))

    handler.__annotations__["context"] = model
    signals.signal("order_placed", context=model).subscribe(handler)
    generic = GenericEventContext(event_type="order_placed", data=data, **given)
    assert dispatcher.emit_typed("order_placed", generic).ok
    assert seen == [(7, "r" if request_id == "r" else "data")]
    assert generic.data == data


@pytest.mark.guarantee("C3")
def test_the_generic_context_is_no_events_own_model(signals: SignalRegistry) -> None:
    with pytest.raises(ContextModelError, match="declare an event without context="):
        signals.signal("order_placed", context=GenericEventContext)


@pytest.mark.guarantee("C3")
def test_a_generic_context_is_refused_under_another_events_name(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    signals.signal("order_placed")
    with pytest.raises(ContextTypeError, match="event_type='order_placed'"):
        dispatcher.emit_typed("order_placed", GenericEventContext(event_type="order_paid"))


@pytest.mark.guarantee("C3")
@pytest.mark.parametrize("key", ["sender", "self"])
def test_a_generic_context_refuses_keys_that_the_call_needs(key: str) -> None:
    with pytest.raises(ValidationError, match="rename them"):
        GenericEventContext(event_type="custom_event", data={key: 1})


@pytest.mark.guarantee("C5")
def test_keywords_are_the_models_attributes_and_nothing_that_is_cached_beside_them(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    signals.signal("order_placed", context=OrderPlaced)
    context = OrderPlaced(order_id=1)
    assert context.label == "order 1"
    seen: list[dict[str, Any]] = []
    signals.subscribe("order_placed", lambda sender, **context: seen.append(context))
    dispatcher.emit_typed("order_placed", context)
    assert set(seen[0]) == set(OrderPlaced.model_fields)
    assert seen[0]["timestamp"] is context.timestamp


class Webhook(BaseEventContext, extra="allow"):
    kind: str


@pytest.mark.guarantee("C5")
def test_extra_fields_that_a_model_allows_reach_handlers_as_keywords(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """Typed and loose, by name, in predicates, and filled in by a scope."""
    signal = signals.signal("hook", context=Webhook)
    seen: list[Any] = []
    signal.subscribe(lambda sender, **context: seen.append(context["payload_id"]))
    signal.subscribe(lambda: seen.append("when"), when=lambda context: context["payload_id"] == 7)
    context = Webhook(kind="x", payload_id=7)  # type: ignore[call-arg]
    dispatcher.emit_typed(signal, context)
    dispatcher.emit(signal, kind="x", payload_id=7)
    with madcrow_events.event_scope(request_id="1"):
        dispatcher.emit_typed(signal, context)
    assert seen == [7, "when"] * 3


class Application(BaseEventContext):
    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Do something else than the base."""


class Paid(Application):
    order_id: int
    request_id: int = 0  # type: ignore[assignment]  # declared anew


class SpecialGeneric(GenericEventContext):
    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Likewise."""


class Report(SpecialGeneric):
    pages: int = 3


class Copied(BaseEventContext):
    def model_copy(self, **_: Any) -> Any:  # type: ignore[override]
        """Lose what is given."""

    def model_dump(self, **_: Any) -> Any:
        """Likewise."""

    def model_post_init(self, context: Any, /) -> None:
        """Likewise."""


class WithoutSuper(BaseEventContext):
    order_id: int

    def __init__(self, order_id: int) -> None:
        """Give all fields, without the base."""
        base = dict.fromkeys(BaseEventContext.model_fields)
        object.__setattr__(self, "__dict__", {**base, "order_id": order_id})


class OpenWithoutSuper(WithoutSuper, extra="allow"):
    pass


@pytest.mark.guarantee("C5")
@pytest.mark.parametrize("is_declared", [True, False])
@pytest.mark.parametrize(
    ("context", "field", "value"),
    [
        (Paid(order_id=7), "order_id", 7),
        (Paid(order_id=7), "request_id", 0),
        (Report(event_type="paid"), "pages", 3),
        (Copied(), "request_id", "1"),
        (WithoutSuper(7), "order_id", 7),
        (OpenWithoutSuper(7), "order_id", 7),
    ],
    ids=["new field", "field declared anew", "generic", "copied", "no super", "open, no super"],
)
def test_a_models_own_hooks_lose_no_fields(
    signals: SignalRegistry,
    dispatcher: EventDispatcher,
    context: Any,
    field: str,
    value: Any,
    is_declared: bool,
) -> None:
    """Though they do not call those of the base."""
    model = type(context) if is_declared and not isinstance(context, Report) else None
    signals.signal("paid", context=model)  # type: ignore[arg-type]
    seen: list[Any] = []
    signals.subscribe("paid", lambda sender, **context: seen.append(context[field]))
    with madcrow_events.event_scope(request_id="1"):
        assert dispatcher.emit_typed("paid", context).ok
    assert seen == [value]


@pytest.mark.guarantee("C1")
def test_a_model_is_built_as_its_signal_is_declared_and_a_built_in_one_at_its_first_use(
    signals: SignalRegistry,
) -> None:
    """To build the built-in ones would cost each import."""

    class Fresh(BaseEventContext):
        number: int = 0

    assert not Fresh.__pydantic_complete__
    signals.signal("order_placed", context=Fresh)
    assert Fresh.__pydantic_complete__
    code = (
        "from madcrow_events import *; from madcrow_events import madcrow_signals as signals\n"
        "models = [signal.context_model for signal in signals.values()]\n"
        "print([model for model in models if model.__pydantic_complete__])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Later(BaseEventContext):
    order: "Missing"  # type: ignore[name-defined]  # noqa: F821, UP037


@pytest.mark.guarantee("C1")
def test_a_model_that_names_a_class_of_later_may_be_declared(
    signals: SignalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is built when it is used, as soon as all is there."""
    signal = signals.signal("order_placed", context=Later)
    monkeypatch.setattr(sys.modules[__name__], "Missing", OrderPlaced, raising=False)
    assert Later(order=OrderPlaced(order_id=1)).order.order_id == 1
    assert signal.context_model is Later


class Slow:
    building: ClassVar[list[int]] = []
    most: ClassVar[int] = 0

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Tell how many threads are in here."""
        cls.building.append(1)
        cls.most = max(cls.most, len(cls.building))
        time.sleep(0.01)
        cls.building.pop()
        return any_schema()


@pytest.mark.guarantee("C1")
def test_models_are_built_by_one_thread_at_a_time() -> None:
    """Pydantic itself lets several build one at once, which it does not always survive."""
    models = [
        create_model(f"Model{number}", __base__=BaseEventContext, slow=(Slow, ...))
        for number in range(4)
    ]
    made: list[Any] = []

    def work() -> None:
        made.extend(model(slow=1).slow for model in models)  # type: ignore[attr-defined]

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1] * 32
    assert Slow.most == 1


class Order(BaseEventContext):
    order_id: int = 0


@pytest.mark.guarantee("F6")
@pytest.mark.parametrize(
    "act",
    [
        lambda signals: signals.signal("order_placed", context=Order),
        pytest.param(
            lambda signals: create_model("Other", __base__=Order)(),
            marks=pytest.mark.skipif(
                hasattr(pydantic.main, "_rebuild_lock"), reason="pydantic has such a lock itself"
            ),
        ),
    ],
    ids=["declares an event", "makes a first context"],
)
def test_a_model_may_be_built_while_it_waits_for_a_thread_that(
    act: Any, signals: SignalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To build it may import a module, which another thread is importing at this moment."""
    monkeypatch.setattr(building, "wait", 0.01)
    thread = threading.Thread(target=act, args=(signals,), daemon=True)

    class Waiting:
        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            thread.start()
            thread.join(10)
            return any_schema()

    create_model("Lazy", __base__=BaseEventContext, waiting=(Waiting, None))()
    assert not thread.is_alive()


ValueT = TypeVar("ValueT")


class Changed(BaseEventContext, Generic[ValueT]):
    value: ValueT


@pytest.mark.guarantee("C4")
def test_a_generic_model_with_the_same_parameters_is_the_same_in_every_thread(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """Pydantic keeps a class for each thread, or lets two threads make one each at once."""
    changed = signals.signal("number_changed", context=Changed[int])
    heard: list[Any] = []

    @changed.on()
    def hear(context: Changed[int]) -> None:
        heard.append(context)

    of_another_thread: Any = create_model("Changed[int]", __base__=Changed, value=(int, ...))
    of_another_thread.__pydantic_generic_metadata__ = Changed[int].__pydantic_generic_metadata__
    derived: Any = create_model("Derived", __base__=of_another_thread)
    assert not issubclass(derived, Changed[int])
    for model in (of_another_thread, derived):
        context = model(value=1)
        assert not dispatcher.emit_typed(changed, context).failures
        assert heard.pop() is context
    assert signals.signal("number_changed", context=of_another_thread) is changed
    with pytest.raises(ContextTypeError):
        dispatcher.emit_typed(changed, Changed[str](value="1"))  # type: ignore[arg-type]
    with pytest.raises(SignalConflictError):
        signals.signal("number_changed", context=Changed[str])
    free = signals.signal("anything_changed")
    free.subscribe(hear)
    assert not dispatcher.emit_typed(free, of_another_thread(value=2)).failures


@pytest.mark.guarantee("C1")
@pytest.mark.parametrize("is_held", [False, True])
def test_a_model_can_be_rebuilt_with_the_names_of_a_function(
    is_held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As any model of pydantic can, also while another thread takes too long with one."""

    def hold() -> None:
        with building.lock:
            holding.set()
            rebuilt.wait(10)

    monkeypatch.setattr(building, "wait", 0.01)
    holding, rebuilt = threading.Event(), threading.Event()
    thread = threading.Thread(target=hold)
    if is_held:
        thread.start()
        assert holding.wait(10)

    class Local(BaseEventContext):
        number: "Tally"  # noqa: UP037

    Tally = int  # noqa: N806
    assert Local.model_rebuild()
    assert Local(number=1).number == 1
    rebuilt.set()
    if is_held:
        thread.join(10)


@pytest.mark.guarantee("C1")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_that_was_forked_while_a_model_was_built_can_build_it() -> None:
    """The thread that was building it does not exist there."""

    class Fresh(BaseEventContext):
        number: int = 0

    entered, done = threading.Event(), threading.Event()

    def build() -> None:
        with building.lock:
            entered.set()
            done.wait(10)

    thread = threading.Thread(target=build)
    thread.start()
    assert entered.wait(10)
    child = os.fork()
    if not child:  # pragma: no cover  # in the child
        signal.alarm(10)
        os._exit(Fresh().number)
    _, status = os.waitpid(child, 0)
    done.set()
    thread.join()
    assert status == 0
