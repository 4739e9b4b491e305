"""Every error of the outbox can be caught, read and sent to another process."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from madcrow_events import MadcrowEventsError, emit_event
from madcrow_events.outbox import (
    HandlerIdError,
    InvalidCloudEventError,
    LeaseLostError,
    MalformedPayloadError,
    NotInOutboxError,
    NoTransactionError,
    NotSerialisableError,
    OutboxError,
    OutboxSchemaError,
    UnknownVersionError,
    UnreadablePayloadError,
    WorkerDiedError,
    _errors,
)

FITTING: dict[type[OutboxError], type[Exception]] = {
    HandlerIdError: ValueError,
    InvalidCloudEventError: ValueError,
    LeaseLostError: RuntimeError,
    MalformedPayloadError: ValueError,
    NoTransactionError: RuntimeError,
    NotInOutboxError: LookupError,
    NotSerialisableError: TypeError,
    OutboxError: MadcrowEventsError,
    OutboxSchemaError: RuntimeError,
    UnknownVersionError: LookupError,
    UnreadablePayloadError: ValueError,
    WorkerDiedError: RuntimeError,
}
"""Each error and what `except` may name in its place."""

EXAMPLES: list[OutboxError] = [
    HandlerIdError("wrong", handler=emit_event),
    InvalidCloudEventError("wrong", attribute="time"),
    LeaseLostError("wrong"),
    MalformedPayloadError("wrong", event="order_placed"),
    NoTransactionError("wrong"),
    NotInOutboxError("wrong"),
    NotSerialisableError("wrong", event="order_placed", field="item.price"),
    OutboxError("wrong"),
    OutboxSchemaError("wrong"),
    UnknownVersionError("wrong", event="order_placed", version=3, known=2),
    UnreadablePayloadError("wrong", event="order_placed", problems=(("total", "missing"),)),
    WorkerDiedError("wrong"),
]

every_error = pytest.mark.parametrize("error", FITTING, ids=lambda error: error.__name__)
every_example = pytest.mark.parametrize(
    "example", EXAMPLES, ids=lambda example: type(example).__name__
)


def test_every_error_is_examined_here() -> None:
    assert sorted(error.__name__ for error in FITTING) == _errors.__all__
    assert [type(example).__name__ for example in EXAMPLES] == _errors.__all__


@every_error
def test_an_error_is_caught_as_ours_and_as_the_built_in_that_fits_it(
    error: type[OutboxError],
) -> None:
    assert issubclass(error, OutboxError)
    assert issubclass(error, FITTING[error])


@every_error
def test_an_error_says_in_one_line_what_it_means(error: type[OutboxError]) -> None:
    first, _, rest = inspect.cleandoc(error.__doc__ or "").partition("\n")

    assert first.endswith(".")
    assert not rest or rest.startswith("\n")


@every_error
def test_the_drawing_of_the_tree_shows_the_error_and_what_it_is(error: type[OutboxError]) -> None:
    assert f"{error.__name__} ({FITTING[error].__name__})" in (_errors.__doc__ or "")


@every_example
def test_an_error_survives_pickling_and_copying_with_its_attributes(example: OutboxError) -> None:
    returned = pickle.loads(pickle.dumps(example))  # noqa: S301  # our own pickle

    assert type(returned) is type(example)
    assert str(returned) == str(example) == "wrong"
    assert vars(returned) == vars(example) == vars(copy.copy(example))


@every_example
def test_an_error_can_be_made_of_its_message_alone(example: OutboxError) -> None:
    """So that the test double of an application can raise one."""
    assert str(type(example)("wrong")) == "wrong"
