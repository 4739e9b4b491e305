"""What `event_scope` fills in (B5)."""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import Annotated, Any, ClassVar, Optional

import pytest
from pydantic import AliasChoices, AliasPath, ConfigDict, Field, PrivateAttr, field_validator
from pydantic.alias_generators import to_camel

from madcrow_events import (
    BaseEventContext,
    ContextValidationError,
    Emission,
    EventDispatcher,
    EventSignal,
    GenericEventContext,
    LoginEventContext,
    SignalRegistry,
    event_scope,
)
from support.aliases import BY_ALIAS
from support.scopes import (
    FIELDS,
    NAMES,
    NOTHING,
    Placed,
    WithRequired,
    fields_of,
    generic,
    loose,
    loose_async,
    typed,
    typed_async,
)
from support.waiting import LIMIT

pytestmark = pytest.mark.guarantee("B5")


each_way = pytest.mark.parametrize("emitting", [loose, typed, generic, loose_async, typed_async])


@each_way
def test_it_fills_in_what_the_emitter_left_out(
    signal: EventSignal[Any], dispatcher: EventDispatcher, emitting: Any
) -> None:
    """Handlers of every form see it, plain and async ones, and the emission itself."""
    seen: list[dict[str, Any]] = []

    def by_keywords(sender: Any, **context: Any) -> None:
        seen.append({name: context[name] for name in NAMES})

    def by_name(request_id: Any, user_agent: Any, ip_address: Any) -> None:
        seen.append(dict(zip(NAMES, (request_id, user_agent, ip_address), strict=True)))

    def by_model(context: Placed) -> None:
        seen.append({name: getattr(context, name) for name in NAMES})

    def by_emission(emission: Emission[Any]) -> None:
        seen.append(fields_of(emission))

    def by_emission_of_model(emission: Emission[Placed]) -> None:
        by_model(emission.context)

    async def async_by_keywords(sender: Any, **context: Any) -> None:
        by_keywords(sender, **context)

    async def async_by_model(context: Placed) -> None:
        by_model(context)

    async def with_options(emission: Emission[Any]) -> None:
        by_emission(emission)

    for handler in (by_keywords, by_name, by_model, by_emission, by_emission_of_model):
        signal.subscribe(handler)
    for handler in (async_by_keywords, async_by_model):
        signal.subscribe(handler)
    signal.subscribe(with_options, timeout=LIMIT)
    with event_scope(**FIELDS):
        emission = emitting(dispatcher)
    assert dispatcher.drain(LIMIT)
    assert emission.ok
    assert seen == [FIELDS] * 8
    assert fields_of(emission) == FIELDS


@each_way
@pytest.mark.parametrize("value", ["the emitter's", None])
def test_what_the_emitter_gives_stays(
    signal: EventSignal[Any], dispatcher: EventDispatcher, emitting: Any, value: str | None
) -> None:
    """None that is given is not left out."""
    with event_scope(**FIELDS):
        emission = emitting(dispatcher, ip_address=value)
    assert fields_of(emission) == {**FIELDS, "ip_address": value}


@each_way
def test_nothing_is_filled_in_after_the_block(
    signal: EventSignal[Any], dispatcher: EventDispatcher, emitting: Any
) -> None:
    """Nor before it; the end of the block may be an exception."""
    assert fields_of(emitting(dispatcher)) == NOTHING
    with pytest.raises(ValueError), event_scope(**FIELDS):
        raise ValueError
    assert fields_of(emitting(dispatcher)) == NOTHING


@each_way
def test_blocks_add_to_outer_blocks_and_override_them(
    signal: EventSignal[Any], dispatcher: EventDispatcher, emitting: Any
) -> None:
    """None takes a field back, and the end of a block what it changed."""
    with event_scope(request_id="outer", user_agent="outer"):
        with event_scope(request_id="inner", ip_address="inner"):
            with event_scope(user_agent=None):
                innermost = fields_of(emitting(dispatcher))
            inner = fields_of(emitting(dispatcher))
        outer = fields_of(emitting(dispatcher))
    assert innermost == {"request_id": "inner", "user_agent": None, "ip_address": "inner"}
    assert inner == {"request_id": "inner", "user_agent": "outer", "ip_address": "inner"}
    assert outer == {"request_id": "outer", "user_agent": "outer", "ip_address": None}


def test_a_field_that_was_taken_back_is_not_among_loose_keywords(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """A loose emission has exactly what was given and what is filled in."""
    with event_scope(request_id="1", user_agent="browser"), event_scope(user_agent=None):
        assert dict(loose(dispatcher, number=1).context) == {"number": 1, "request_id": "1"}
    with event_scope():
        assert dict(loose(dispatcher, number=1).context) == {"number": 1}


def test_the_emitters_own_context_is_not_changed(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """A copy is handed on, of the same class, with the same values and fields known as given."""
    context = Placed(number=3)
    before = context.model_copy(deep=True)
    with event_scope(request_id="1"):
        emission = dispatcher.emit_typed(signal, context)
        again = dispatcher.emit_typed(signal, context)
    assert context == before
    assert context.model_fields_set == {"number"}
    assert emission.context is not context
    assert type(emission.context) is Placed
    assert emission.context == context.model_copy(update={"request_id": "1"})
    assert emission.context.model_fields_set == {"number", "request_id"}
    assert again.context == emission.context
    assert dispatcher.emit_typed(signal, context).context is context


@pytest.mark.parametrize("given", [FIELDS, {"request_id": "1"}])
def test_a_context_with_nothing_to_fill_in_is_not_copied(
    signal: EventSignal[Any], dispatcher: EventDispatcher, given: dict[str, str]
) -> None:
    """It is what handlers get, as outside of any block."""
    context = Placed(**given)
    with event_scope(request_id="2"):
        assert dispatcher.emit_typed(signal, context).context is context


def test_the_emitters_own_dictionary_is_not_changed(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Neither the keywords of a loose emission nor the data of a generic one."""
    keywords: dict[str, Any] = {"number": 1}
    context = GenericEventContext(event_type="order_placed", data=keywords)
    with event_scope(**FIELDS):
        dispatcher.emit(signal, **keywords)
        emission = dispatcher.emit_typed(signal, context)
    assert keywords == context.data == emission.context.data == {"number": 1}
    assert context.request_id is None


def test_what_was_cached_of_the_emitters_context_is_not_handed_on(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """A cached property is worked out anew from what is filled in; other attributes stay."""

    class Labelled(BaseEventContext):
        @cached_property
        def label(self) -> str:
            return f"request {self.request_id}"

        def model_post_init(self, context: Any, /) -> None:
            vars(self)["made_by"] = "hand"

    context = Labelled()
    assert context.label == "request None"
    signal = signals.signal("labelled", context=Labelled)
    with event_scope(request_id="1"):
        emission = dispatcher.emit_typed(signal, context)
    assert emission.context.label == "request 1"
    assert vars(emission.context)["made_by"] == "hand"
    assert context.label == "request None"
    assert dispatcher.emit_typed(signal, context).context.label == "request None"


def test_a_copy_keeps_what_is_no_field(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """Private attributes and extra fields; a change of the one is no change of the other."""

    class Noted(BaseEventContext):
        model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow")
        _notes: list[str] = PrivateAttr(default_factory=list)

    context = Noted(colour="red")  # type: ignore[call-arg]  # an extra field
    context._notes.append("made")
    signal = signals.signal("noted", context=Noted)
    with event_scope(request_id="1"):
        copied = dispatcher.emit_typed(signal, context).context
    assert copied.request_id == "1"
    assert copied._notes == ["made"]
    assert copied.__pydantic_extra__ == {"colour": "red"}
    assert copied.__pydantic_extra__ is not context.__pydantic_extra__
    assert context.request_id is None


def test_a_model_that_requires_a_field_gets_it_when_keywords_are_validated(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """With `validate=True` the block counts as given, outside of it the field is missing."""
    signals.signal("needs_request", context=WithRequired)
    strict = dispatcher.with_options(validate=True)
    with event_scope(request_id="1"):
        assert strict.emit("needs_request").context["request_id"] == "1"
        assert strict.emit("needs_request", request_id="2").context["request_id"] == "2"
        assert asyncio.run(strict.emit_async("needs_request")).context["request_id"] == "1"
        with event_scope(request_id=None), pytest.raises(ContextValidationError, match="missing"):
            strict.emit("needs_request")
    with pytest.raises(ContextValidationError, match="missing"):
        strict.emit("needs_request")


def test_a_model_that_requires_a_field_gets_it_for_its_handlers(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """A loose emission is validated into the model with what was filled in."""

    def handler(context: WithRequired) -> str:
        return context.request_id

    signals.signal("needs_request", context=WithRequired).subscribe(handler)
    with event_scope(request_id="1"):
        assert dispatcher.emit("needs_request").results[0].value == "1"
    assert not dispatcher.emit("needs_request").ok


class Number(BaseEventContext):
    request_id: int = 0  # type: ignore[assignment]  # declared anew


class WithRequiredNumber(Number):
    number: int


class Narrower(BaseEventContext):
    request_id: str = "unknown"  # type: ignore[assignment]  # declared anew


class Short(BaseEventContext):
    request_id: Annotated[str | None, Field(max_length=3)] = None


class Bounded(BaseEventContext):
    request_id: str | None = Field(default=None, max_length=3)


def test_a_field_that_is_always_text_is_filled_in(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """A default of the model's own is not the emitter's word."""
    signals.signal("special_thing", context=Narrower)
    with event_scope(request_id="request 7"):
        emission = dispatcher.emit_typed("special_thing", Narrower())
    assert emission.context.request_id == "request 7"


class Checked(BaseEventContext):
    @field_validator("request_id")
    @classmethod
    def _is_short(cls, value: str | None) -> str | None:
        if value and len(value) > 3:
            raise ValueError("too long")
        return value


class AllShort(BaseEventContext, str_max_length=7):
    pass


@pytest.mark.parametrize("model", [Number, Short, Bounded, Checked, AllShort])
def test_a_field_of_another_type_is_left_alone(
    signals: SignalRegistry, dispatcher: EventDispatcher, model: type[BaseEventContext]
) -> None:
    """What a model would refuse, or has made its own, gets in by no back door; the rest does."""
    signals.signal("special_thing", context=model)
    context = model()
    browser = None if model is AllShort else "browser"
    with event_scope(request_id="too long", user_agent="browser"):
        emission = dispatcher.emit_typed("special_thing", context)
        keywords = dict(dispatcher.emit("special_thing").context)
    assert emission.context.request_id == context.request_id
    assert emission.context.user_agent == browser
    assert keywords == ({"user_agent": browser} if browser else {})


def test_a_handlers_own_model_decides_what_it_gets_where_the_event_has_none(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """Keywords were filled in under the plain names; each handler gets what its model takes."""
    seen: list[Any] = []

    def camel(context: CamelOnly | Number) -> None:
        seen.append(context.request_id)

    def number(context: Number) -> None:
        seen.append(context.request_id)

    def misfit(context: WithRequiredNumber) -> None: ...

    signal = signals.signal("any_thing")
    for handler in (camel, number, misfit):
        signal.subscribe(handler)
    with event_scope(request_id="r"):
        (failure,) = dispatcher.emit(signal).failures
    assert seen == ["r", 0]
    assert str(failure.exception).endswith("number: missing, emit it with number=...")
    (failure,) = dispatcher.emit(signal).failures
    assert str(failure.exception).endswith("number: missing, emit it with number=...")


class SpelledOptional(BaseEventContext):
    request_id: Optional[str] = None  # noqa: UP045  # another spelling


class Described(BaseEventContext):
    request_id: str | None = Field(default=None, description="Whose", examples=["a"])


class Inherited(Described):
    pass


@pytest.mark.parametrize("model", [SpelledOptional, Described, Inherited, LoginEventContext])
def test_a_field_of_the_same_type_is_filled_in(
    signals: SignalRegistry, dispatcher: EventDispatcher, model: type[BaseEventContext]
) -> None:
    """However it is spelled or described, and in the models of built-in events."""
    signals.signal("plain_thing", context=model)
    required = {"user_id": 1, "email": "a@b.c"} if model is LoginEventContext else {}
    with event_scope(**FIELDS):
        emission = dispatcher.emit_typed("plain_thing", model(**required))
    assert fields_of(emission) == FIELDS


def test_a_signal_without_a_model_takes_any_context_filled_in(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """The model of the context decides, not that of the signal."""
    signals.signal("any_thing")
    with event_scope(**FIELDS):
        assert fields_of(dispatcher.emit_typed("any_thing", Placed())) == FIELDS
        number = dispatcher.emit_typed("any_thing", Number()).context
    assert (number.request_id, number.ip_address) == (0, FIELDS["ip_address"])


def test_a_field_of_a_generic_context_wins_over_its_data(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """As it does without a block."""
    context = GenericEventContext(event_type="order_placed", data={"request_id": "of the data"})
    seen: list[Any] = []

    def handler(sender: Any, **context: Any) -> None:
        seen.append((context["request_id"], context["data"]))

    signal.subscribe(handler)
    with event_scope(request_id="1"):
        dispatcher.emit_typed(signal, context)
    assert seen == [("1", {"request_id": "of the data"})]


def test_predicates_see_what_was_filled_in(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Those of inline, async and background handlers."""
    seen: list[str] = []

    async def async_handler() -> None:
        seen.append("async")

    def from_here(context: Any) -> bool:
        return context.get("ip_address") == "here"

    signal.subscribe(lambda: seen.append("inline"), when=from_here)
    signal.subscribe(async_handler, when=from_here)
    signal.subscribe(lambda: seen.append("background"), when=from_here, background=True)
    for address in ("here", "there"):
        with event_scope(ip_address=address):
            typed(dispatcher)
            loose(dispatcher)
    assert dispatcher.drain(LIMIT)
    assert sorted(seen) == ["async"] * 2 + ["background"] * 2 + ["inline"] * 2


class Camel(BaseEventContext):
    model_config = ConfigDict(alias_generator=to_camel)


class CamelOnly(BaseEventContext):
    model_config: ClassVar[Any] = {"alias_generator": to_camel, **BY_ALIAS}


class InHeaders(BaseEventContext):
    request_id: str | None = Field(None, validation_alias=AliasChoices("rid", AliasPath("h", "id")))
    user_agent: str | None = Field(None, validation_alias=AliasPath("h", "agent"))


class NestedOnly(BaseEventContext):
    model_config: ClassVar[Any] = BY_ALIAS
    request_id: str | None = Field(default=None, validation_alias=AliasPath("request", "id"))


@pytest.mark.parametrize(
    ("model", "given", "request_id"),
    [
        (Camel, {}, "1"),
        (Camel, {"requestId": "own"}, "own"),
        (Camel, {"request_id": "own"}, "own"),
        (CamelOnly, {}, "1"),
        (CamelOnly, {"requestId": "own"}, "own"),
        (NestedOnly, {"request": {"id": "own"}}, "own"),
        (NestedOnly, {}, None),
        (InHeaders, {"h": {"id": "own"}}, "own"),
        (InHeaders, {"rid": "own"}, "own"),
        (InHeaders, {"h": {"agent": "a"}}, "1"),
    ],
)
@pytest.mark.parametrize("validate", [False, True])
def test_a_field_that_is_given_by_its_alias_is_given(
    signals: SignalRegistry, model: Any, given: dict[str, Any], request_id: Any, validate: bool
) -> None:
    """And one that is filled in stands under a name that the model takes, if it has one."""
    seen: list[Any] = []

    def handler(context: BaseEventContext) -> None:
        seen.append(context.request_id)

    signal = signals.signal("special_thing", context=model)
    signal.subscribe(handler)
    dispatcher = EventDispatcher(signals, validate=validate, on_error="raise")
    with event_scope(request_id="1"):
        dispatcher.emit(signal, **given)
        if model is not NestedOnly:
            dispatcher.emit_typed(signal, model(**given))
    assert set(seen) == {request_id}
