"""Every error of the package can be caught, read and sent to another process."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from madcrow_events import LoginEventContext, LogoutEventContext, emit_event, exceptions
from madcrow_events.exceptions import (
    ContextModelError,
    ContextTypeError,
    ContextValidationError,
    DispatcherClosedError,
    EmissionDepthError,
    EventLoopError,
    HandlerCancelledError,
    HandlerErrors,
    HandlerSignatureError,
    HandlerTimeoutError,
    InvalidEventNameError,
    InvalidOptionError,
    MadcrowEventsError,
    PluginError,
    QueueFullError,
    SignalConflictError,
    SubscriptionConflictError,
    UnknownEventError,
    WouldDeadlockError,
)

FITTING: dict[type[MadcrowEventsError], type[Exception]] = {
    ContextModelError: TypeError,
    ContextTypeError: TypeError,
    ContextValidationError: ValueError,
    DispatcherClosedError: RuntimeError,
    EmissionDepthError: RecursionError,
    EventLoopError: RuntimeError,
    HandlerCancelledError: RuntimeError,
    HandlerErrors: ExceptionGroup,
    HandlerSignatureError: TypeError,
    HandlerTimeoutError: TimeoutError,
    InvalidEventNameError: ValueError,
    InvalidOptionError: ValueError,
    MadcrowEventsError: Exception,
    PluginError: ImportError,
    QueueFullError: RuntimeError,
    SignalConflictError: ValueError,
    SubscriptionConflictError: ValueError,
    UnknownEventError: LookupError,
    WouldDeadlockError: RuntimeError,
}
"""Each public error and the built-in that `except` may name in its place."""

EXAMPLES: list[MadcrowEventsError] = [
    ContextModelError("wrong", event="order_placed", model=int),
    ContextTypeError(
        "wrong", event="order_placed", expected=(LoginEventContext,), received=LogoutEventContext
    ),
    ContextValidationError("wrong", event="order_placed", problems=(("email", "missing"),)),
    DispatcherClosedError("wrong", event="order_placed"),
    EmissionDepthError("wrong", events=("order_placed", "order_paid")),
    HandlerCancelledError("wrong"),
    HandlerSignatureError("wrong", event="order_placed", handler=emit_event),
    HandlerTimeoutError("wrong", event="order_placed", handler=emit_event, timeout=2.5),
    InvalidEventNameError("wrong", name="Order Placed"),
    InvalidOptionError("wrong", option="priority"),
    MadcrowEventsError("wrong"),
    PluginError("wrong", plugin="acme-alerts:alerts"),
    QueueFullError("wrong", event="order_placed", queue_size=1),
    SignalConflictError(
        "wrong", event="order_placed", declared=LoginEventContext, requested=LogoutEventContext
    ),
    SubscriptionConflictError("wrong", event="order_placed", handler=emit_event),
    UnknownEventError("wrong", event="order_placd", suggestions=("order_placed",)),
    EventLoopError("wrong", event="order_placed", library="trio"),
    WouldDeadlockError("wrong"),
]

every_error = pytest.mark.parametrize("error", FITTING, ids=lambda error: error.__name__)
every_example = pytest.mark.parametrize(
    "example", EXAMPLES, ids=lambda example: type(example).__name__
)


def test_every_public_error_is_examined_here() -> None:
    assert sorted(error.__name__ for error in FITTING) == exceptions.__all__
    assert {type(example) for example in EXAMPLES} | {HandlerErrors} == set(FITTING)


@every_error
def test_an_error_is_caught_as_ours_and_as_the_built_in_that_fits_it(
    error: type[MadcrowEventsError],
) -> None:
    assert issubclass(error, MadcrowEventsError)
    assert issubclass(error, FITTING[error])


@every_error
def test_an_error_says_in_one_line_what_it_means(error: type[MadcrowEventsError]) -> None:
    first, _, rest = inspect.cleandoc(error.__doc__ or "").partition("\n")

    assert first.endswith(".")
    assert not rest or rest.startswith("\n")


@every_error
def test_the_drawing_of_the_tree_shows_the_error_and_its_built_in(
    error: type[MadcrowEventsError],
) -> None:
    assert f"{error.__name__} ({FITTING[error].__name__})" in (exceptions.__doc__ or "")


@every_example
def test_an_error_survives_pickling_with_its_attributes(example: MadcrowEventsError) -> None:
    returned = pickle.loads(pickle.dumps(example))  # noqa: S301  # our own pickle

    assert type(returned) is type(example)
    assert str(returned) == str(example) == "wrong"
    assert vars(returned) == vars(example)


@every_example
def test_an_error_survives_copying_with_its_attributes(example: MadcrowEventsError) -> None:
    assert vars(copy.copy(example)) == vars(example)


@every_example
def test_an_error_can_be_made_of_its_message_alone(example: MadcrowEventsError) -> None:
    """So that the test double of an application can raise one."""
    assert str(type(example)("wrong")) == "wrong"


def test_a_group_of_errors_survives_pickling_with_its_event_and_members() -> None:
    group = HandlerErrors("two failed", [ValueError("a"), KeyError("b")], event="order_placed")

    returned = pickle.loads(pickle.dumps(group))  # noqa: S301  # our own pickle

    assert type(returned) is HandlerErrors
    assert returned.event == "order_placed"
    assert returned.message == "two failed"
    assert [repr(error) for error in returned.exceptions] == ["ValueError('a')", "KeyError('b')"]


def test_a_part_of_a_group_of_errors_is_a_group_of_the_same_event() -> None:
    group = HandlerErrors("two failed", [ValueError("a"), KeyError("b")], event="order_placed")

    matching, rest = group.split(ValueError)

    assert isinstance(matching, HandlerErrors)
    assert isinstance(rest, HandlerErrors)
    assert (matching.event, rest.event) == ("order_placed", "order_placed")
