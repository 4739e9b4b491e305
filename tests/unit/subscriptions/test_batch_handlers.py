"""The option `batch`, and what a handler for batches may look like (B3)."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Annotated, Any, Protocol

import pytest

from madcrow_events import (
    BaseEventContext,
    Batch,
    Emission,
    EventDispatcher,
    EventSignal,
    HandlerGroup,
    HandlerSignatureError,
    InvalidOptionError,
    LoginEventContext,
    LogoutEventContext,
    SignalRegistry,
    SubscriptionConflictError,
    on_event,
    on_user_login,
    register_handler,
    user_logged_in,
)
from support.inside import backlog_of

pytestmark = pytest.mark.guarantee("B3")

CONTEXT = LoginEventContext(user_id=1, email="a@b.c")


class OrderContext(BaseEventContext):
    order_id: int


@pytest.fixture
def placed(signals: SignalRegistry) -> EventSignal[OrderContext]:
    return signals.signal("order_placed", context=OrderContext)


# The option


def test_a_batch_has_limits_by_default() -> None:
    assert (Batch().max_size, Batch().max_wait) == (100, 1.0)
    assert repr(Batch()) == "Batch(max_size=100, max_wait=1.0)"


def test_batches_with_the_same_limits_are_equal() -> None:
    assert Batch(5, 2) == Batch(max_size=5, max_wait=2.0)
    assert hash(Batch(5, 2)) == hash(Batch(5, 2.0))
    assert Batch(5) != Batch(6)
    assert Batch(max_wait=1) != Batch(max_wait=2)
    assert Batch() != (100, 1.0)


@pytest.mark.parametrize("size", [0, -1, True, 1.5, 10.0, "10", None, 1_000_001])
def test_a_batch_has_a_whole_number_of_contexts(size: Any) -> None:
    with pytest.raises(InvalidOptionError) as raised:
        Batch(size)
    assert raised.value.option == "max_size"
    assert str(raised.value) == "max_size must be a whole number from 1 to 1000000, such as 100"


@pytest.mark.parametrize(
    "seconds", [0, -1, math.nan, math.inf, None, True, "1", Fraction(1, 2), 10**400]
)
def test_a_context_waits_for_a_number_of_seconds(seconds: Any) -> None:
    """For ever is none, and the message does not offer it."""
    with pytest.raises(InvalidOptionError) as raised:
        Batch(max_wait=seconds)
    assert raised.value.option == "max_wait"
    assert str(raised.value) == "max_wait must be a finite number of seconds above 0, such as 2.5"


def test_the_longest_wait_that_is_accepted_works(
    placed: EventSignal[OrderContext], dispatcher: EventDispatcher
) -> None:
    got: list[int] = []
    placed.subscribe(lambda batch: got.append(len(batch)), batch=Batch(2, threading.TIMEOUT_MAX))
    dispatcher.emit(placed, order_id=1)
    timer = backlog_of(dispatcher).batches.timer.thread
    assert timer is not None
    timer.join(0.05)
    assert timer.is_alive()
    assert dispatcher.drain(10)
    assert got == [1]


@pytest.mark.parametrize("batch", [5, True, (5, 1.0), Batch, "5"])
def test_the_option_is_a_batch_or_none(placed: EventSignal[OrderContext], batch: Any) -> None:
    with pytest.raises(InvalidOptionError, match="batch must be a Batch, such as Batch") as raised:
        placed.subscribe(len, batch=batch)
    assert raised.value.option == "batch"
    with pytest.raises(InvalidOptionError, match="batch must be a Batch"):
        placed.on(batch=batch)


def test_a_handler_that_is_called_once_takes_no_batches(placed: EventSignal[OrderContext]) -> None:
    with pytest.raises(InvalidOptionError, match="leave out once, or batch") as raised:
        placed.subscribe(len, batch=Batch(), once=True)
    assert raised.value.option == "batch"


def test_no_batch_is_the_same_as_leaving_it_out(
    placed: EventSignal[OrderContext], dispatcher: EventDispatcher
) -> None:
    subscription = placed.subscribe(lambda: "called", batch=None)
    assert subscription.batch is None
    assert not subscription.background
    assert dispatcher.emit(placed, order_id=1).results[0].value == "called"


def test_a_handler_for_batches_runs_in_the_background(placed: EventSignal[OrderContext]) -> None:
    subscription = placed.subscribe(len, batch=Batch(7))
    assert subscription.batch == Batch(7)
    assert subscription.background


@pytest.mark.guarantee("H6")
def test_equal_limits_make_the_same_subscription_and_others_a_conflict(
    placed: EventSignal[OrderContext],
) -> None:
    subscription = placed.subscribe(len, batch=Batch(7))
    assert placed.subscribe(len, batch=Batch(7)) is subscription
    with pytest.raises(SubscriptionConflictError):
        placed.subscribe(len, batch=Batch(8))
    with pytest.raises(SubscriptionConflictError):
        placed.subscribe(len, batch=Batch(7), priority=1)


def test_a_plain_handler_for_batches_has_no_timeout(placed: EventSignal[OrderContext]) -> None:
    with pytest.raises(InvalidOptionError, match="cannot be cancelled: make it async"):
        placed.subscribe(len, batch=Batch(), timeout=1)


@pytest.mark.guarantee("H3")
def test_every_way_to_subscribe_takes_the_option() -> None:
    def by_decorator(contexts: list[LoginEventContext]) -> None:
        got.append(("decorator", len(contexts)))

    def by_name(contexts: list[LoginEventContext]) -> None:
        got.append(("name", len(contexts)))

    def by_function(contexts: list[LoginEventContext]) -> None:
        got.append(("function", len(contexts)))

    def by_group(contexts: list[LoginEventContext]) -> None:
        got.append(("group", len(contexts)))

    def by_signal(contexts: list[LoginEventContext]) -> None:
        got.append(("signal", len(contexts)))

    got: list[tuple[str, int]] = []
    group = HandlerGroup("logins")
    assert on_user_login(batch=Batch(2))(by_decorator) is by_decorator
    assert on_event("user_logged_in", batch=Batch(2))(by_name) is by_name
    assert user_logged_in.on(batch=Batch(2))(by_signal) is by_signal
    register_handler("user_logged_in", by_function, batch=Batch(2))
    group.on("user_logged_in", batch=Batch(2))(by_group)
    group.register()
    with EventDispatcher() as dispatcher:
        for _ in range(2):
            dispatcher.emit_typed(user_logged_in, CONTEXT)
    ways = ["decorator", "function", "group", "name", "signal"]
    assert sorted(got) == [(way, 2) for way in ways]


# What the handler takes


def takes_models(contexts: list[LoginEventContext]) -> Any:
    return contexts


def takes_base_models(contexts: list[BaseEventContext]) -> Any:
    return contexts


def takes_a_union(contexts: list[LogoutEventContext | LoginEventContext]) -> Any:
    return contexts


def takes_a_sequence(contexts: Sequence[LoginEventContext]) -> Any:
    return contexts


def takes_an_iterable(contexts: Iterable[LoginEventContext]) -> Any:
    return contexts


def takes_a_list_or_nothing(contexts: list[LoginEventContext] | None = None) -> Any:
    return contexts


def takes_an_annotated_list(contexts: Annotated[list[LoginEventContext], "all"]) -> Any:
    return contexts


def takes_more_that_has_a_default(
    contexts: list[LoginEventContext], table: str = "logins", *, retries: int = 3
) -> Any:
    return contexts


def takes_any_name(batch: list[LoginEventContext], /) -> Any:
    return batch


class Loader:
    def takes_models(self, contexts: list[LoginEventContext]) -> Any:
        return contexts

    def __call__(self, contexts: list[LoginEventContext]) -> Any:
        return contexts


loader = Loader()


def returned(handler: Callable[..., Any], *, loose: bool) -> Any:
    """Let a handler have a batch of one; return what it returned."""
    with EventDispatcher() as dispatcher, user_logged_in.subscribe(handler, batch=Batch()):
        if loose:
            emission = dispatcher.emit(user_logged_in, user_id=1, email="a@b.c")
        else:
            emission = dispatcher.emit_typed(user_logged_in, CONTEXT)
        assert dispatcher.drain(10)
    ((_, value),) = emission.results
    return value


@pytest.mark.guarantee("H1")
@pytest.mark.parametrize("loose", [False, True], ids=["typed", "loose"])
@pytest.mark.parametrize(
    "handler",
    [
        takes_models,
        takes_base_models,
        takes_a_union,
        takes_a_sequence,
        takes_an_iterable,
        takes_a_list_or_nothing,
        takes_an_annotated_list,
        takes_more_that_has_a_default,
        takes_any_name,
        loader,
        loader.takes_models,
    ],
)
def test_a_handler_that_names_a_model_gets_a_list_of_models(handler: Any, loose: bool) -> None:
    value = returned(handler, loose=loose)
    assert type(value) is list
    (context,) = value
    assert type(context) is LoginEventContext
    assert context.email == "a@b.c"
    assert (context is CONTEXT) is not loose


def takes_anything(contexts: Any) -> Any:
    return contexts


def takes_a_list_of_any(contexts: list[Any]) -> Any:
    return contexts


@pytest.mark.parametrize(
    "handler",
    [lambda contexts: contexts, lambda *contexts: contexts[0], takes_anything, takes_a_list_of_any],
)
def test_a_handler_that_names_no_model_gets_contexts_as_they_were_emitted(handler: Any) -> None:
    assert returned(handler, loose=False) == [CONTEXT]
    (context,) = returned(handler, loose=True)
    assert dict(context) == {"user_id": 1, "email": "a@b.c"}
    with pytest.raises(TypeError):
        context["email"] = "other"


def takes_emissions(emissions: list[Emission]) -> Any:
    return emissions


def takes_typed_emissions(emissions: list[Emission[LoginEventContext]]) -> Any:
    return emissions


@pytest.mark.parametrize("handler", [takes_emissions, takes_typed_emissions])
def test_a_handler_of_emissions_gets_a_list_of_those(handler: Any) -> None:
    (emission,) = returned(handler, loose=False)
    assert type(emission) is Emission
    assert emission.context is CONTEXT
    (emission,) = returned(handler, loose=True)
    typed = handler is takes_typed_emissions
    assert isinstance(emission.context, LoginEventContext) is typed
    assert emission.event == "user_logged_in"


def test_a_builtin_function_without_annotations_will_do() -> None:
    assert returned(len, loose=True) == 1


# What it may not take


def takes_nothing() -> None: ...


def takes_two(sender: object, contexts: list[LoginEventContext]) -> None: ...


def takes_a_required_keyword(contexts: list[LoginEventContext], *, table: str) -> None: ...


def takes_only_keywords(**context: Any) -> None: ...


def takes_only_a_keyword(*, contexts: list[LoginEventContext]) -> None: ...


def is_a_receiver(sender: object, **context: Any) -> None: ...


def takes_a_model(context: LoginEventContext) -> None: ...


def takes_a_model_or_nothing(context: LoginEventContext | None) -> None: ...


def takes_an_emission(emission: Emission) -> None: ...


def takes_a_typed_emission(emission: Emission[LoginEventContext]) -> None: ...


def takes_other_models(contexts: list[LogoutEventContext]) -> None: ...


def takes_other_emissions(emissions: list[Emission[LogoutEventContext]]) -> None: ...


def takes_self_first(self: Any, contexts: list[LoginEventContext]) -> None: ...


def yields(contexts: list[LoginEventContext]) -> Any:
    yield contexts


ONE_LIST = (
    "has a batch, and so is called with one list: write (contexts), annotated with "
    "list[LoginEventContext] or list[Emission]"
)


@pytest.mark.guarantee("H1")
@pytest.mark.parametrize(
    ("handler", "fix"),
    [
        (takes_nothing, ONE_LIST),
        (takes_two, ONE_LIST),
        (takes_a_required_keyword, ONE_LIST),
        (takes_only_keywords, ONE_LIST),
        (takes_only_a_keyword, ONE_LIST),
        (is_a_receiver, ONE_LIST),
        (takes_a_model, "annotate it with list[LoginEventContext]"),
        (takes_a_model_or_nothing, "annotate it with list[LoginEventContext]"),
        (takes_an_emission, "annotate it with list[Emission]"),
        (takes_a_typed_emission, "annotate it with list["),
        (takes_other_models, "annotate it with list[LoginEventContext]"),
        (takes_other_emissions, "annotate it with list[LoginEventContext]"),
        (takes_self_first, "subscribe the bound method"),
        (yields, "is a generator"),
        (5, "give a function"),
    ],
)
def test_a_handler_that_cannot_take_a_list_is_refused_with_what_to_write(
    handler: Any, fix: str
) -> None:
    with pytest.raises(HandlerSignatureError) as raised:
        user_logged_in.subscribe(handler, batch=Batch())
    assert fix in str(raised.value)
    assert "user_logged_in" in str(raised.value)
    assert user_logged_in.subscriptions == ()


@pytest.mark.guarantee("H1")
def test_an_event_without_a_model_is_offered_the_base_of_all(signals: SignalRegistry) -> None:
    with pytest.raises(HandlerSignatureError, match=r"list\[BaseEventContext\] or list\[Emission]"):
        signals.signal("order_seen").subscribe(takes_nothing, batch=Batch())  # type: ignore[call-overload]


@pytest.mark.guarantee("N4")
@pytest.mark.parametrize(
    ("handler", "fix"),
    [
        (takes_models, "annotate it with list[BaseEventContext] or list[Emission]"),
        (takes_a_model, "annotate it with list[LoginEventContext]"),
        (takes_two, "list[BaseEventContext] or list[Emission]"),
    ],
)
def test_a_handler_for_a_pattern_names_no_model_of_one_event(
    signals: SignalRegistry, handler: Any, fix: str
) -> None:
    with pytest.raises(HandlerSignatureError) as raised:
        signals.subscribe("order_*", handler, batch=Batch())
    assert fix in str(raised.value)


@pytest.mark.guarantee("H1")
def test_a_handler_of_a_list_is_none_of_single_contexts() -> None:
    with pytest.raises(HandlerSignatureError):
        user_logged_in.subscribe(takes_models)  # type: ignore[call-overload]


def takes_a_number(contexts: int) -> None: ...
def takes_a_tuple(contexts: tuple[LoginEventContext, ...]) -> None: ...
def takes_a_mapping(contexts: dict[str, Any]) -> None: ...
def takes_a_field(user_id: Any) -> None: ...
def takes_an_unannotated_field(email) -> None: ...


@pytest.mark.guarantee("B3")
@pytest.mark.parametrize(
    "handler",
    [
        takes_a_number,
        takes_a_tuple,
        takes_a_mapping,
        takes_a_field,
        takes_an_unannotated_field,
    ],
)
def test_a_parameter_that_cannot_be_a_list_is_refused(handler: Any) -> None:
    with pytest.raises(HandlerSignatureError, match=r"write \(contexts\), annotated with list\["):
        user_logged_in.subscribe(handler, batch=Batch())


def test_a_handler_for_lists_without_the_option_is_told_of_it() -> None:
    """The likeliest slip is to forget it."""

    def insert(contexts: list[LoginEventContext]) -> None: ...

    with pytest.raises(HandlerSignatureError, match=r"give the option batch=Batch\(\)"):
        user_logged_in.subscribe(insert)


class Sized(Protocol):
    def __len__(self) -> int: ...


def test_a_protocol_that_cannot_be_asked_is_taken_for_a_list() -> None:
    def handle(contexts: Sized) -> None: ...

    subscription = user_logged_in.subscribe(handle, batch=Batch())
    assert subscription.background
