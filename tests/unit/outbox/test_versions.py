"""What an older program has stored is raised to the version of today's model, step by step."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import pytest

from madcrow_events import (
    BaseEventContext,
    ContextModelError,
    HandlerSignatureError,
    InvalidOptionError,
    SubscriptionConflictError,
)
from madcrow_events.outbox import UnknownVersionError, UnreadablePayloadError
from madcrow_events.outbox._versions import Upcasts, version_of


class OrderPlaced(BaseEventContext):
    event_version: ClassVar[int] = 3

    total: int


class OrderMoved(BaseEventContext):
    pass


def add_total(document: dict[str, Any]) -> dict[str, Any]:
    return {**document, "total": 1}


def double_total(document: dict[str, Any]) -> dict[str, Any]:
    document["total"] *= 2
    return document


@pytest.fixture
def upcasts() -> Upcasts:
    """Return upcasts of `order_placed` up to version 3."""
    upcasts = Upcasts()
    upcasts.add("order_placed", 2, double_total)
    upcasts.add("order_placed", 1, add_total)
    return upcasts


def test_a_model_says_its_version_and_has_the_first_if_it_says_none() -> None:
    assert version_of("order_placed", OrderPlaced) == 3
    assert version_of("order_moved", OrderMoved) == 1
    assert version_of("loose", None) == 1


@pytest.mark.parametrize("version", [0, -1, 32768, True, 2.0, "2", None])
def test_a_version_that_is_no_small_positive_int_is_refused(version: Any) -> None:
    class Odd(BaseEventContext):
        event_version: ClassVar[Any] = version

    with pytest.raises(ContextModelError, match="Odd is no int from 1 to 32767: write") as caught:
        version_of("odd", Odd)
    assert (caught.value.event, caught.value.model) == ("odd", Odd)


def test_a_version_that_is_a_field_is_refused() -> None:
    """Each context could have another one, and the class has none."""

    class Odd(BaseEventContext):
        event_version: int = 2

    with pytest.raises(
        ContextModelError, match=r"is a field: write event_version: ClassVar\[int\]"
    ):
        version_of("odd", Odd)


@pytest.mark.parametrize(
    ("version", "document", "raised"),
    [(1, {}, {"total": 2}), (2, {"total": 5}, {"total": 10}), (3, {"total": 5}, {"total": 5})],
)
def test_a_document_goes_through_each_version_up_to_that_of_the_model(
    upcasts: Upcasts, version: int, document: dict[str, Any], raised: dict[str, Any]
) -> None:
    assert upcasts.raise_version("order_placed", version, 3, document) == raised


@pytest.mark.parametrize("version", [4, 0, -1])
def test_a_version_that_the_model_does_not_reach_is_unknown(upcasts: Upcasts, version: int) -> None:
    with pytest.raises(UnknownVersionError, match="deploy the newer code") as caught:
        upcasts.raise_version("order_placed", version, 3, {})
    assert (caught.value.event, caught.value.version, caught.value.known) == (
        "order_placed",
        version,
        3,
    )


def test_a_gap_is_found_before_any_function_is_called(upcasts: Upcasts) -> None:
    document: dict[str, Any] = {}

    with pytest.raises(UnknownVersionError, match=r"upcast\(order_placed, from_version=3\)"):
        upcasts.raise_version("order_placed", 1, 4, document)
    with pytest.raises(UnknownVersionError, match=r"upcast\(order_moved, from_version=1\)"):
        upcasts.raise_version("order_moved", 1, 2, document)
    assert document == {}


async def raise_later(document: dict[str, Any]) -> dict[str, Any]:
    return document


class RaisesLater:
    async def __call__(self, document: dict[str, Any]) -> dict[str, Any]:
        return document


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (raise_later, "is async"),
        (functools.partial(raise_later), "is async"),
        (RaisesLater(), "is async"),
        (None, "cannot be called"),
    ],
)
def test_a_function_that_cannot_be_called_at_once_is_refused(function: Any, problem: str) -> None:
    with pytest.raises(HandlerSignatureError, match=f"{problem}: write a function") as caught:
        Upcasts().add("order_placed", 1, function)
    assert (caught.value.event, caught.value.handler) == ("order_placed", function)


@pytest.mark.parametrize("version", [0, 32768, True, "1", None])
def test_a_version_to_raise_must_be_a_small_positive_int(version: Any) -> None:
    with pytest.raises(InvalidOptionError, match="from_version must be an int from 1 to 32767"):
        Upcasts().add("order_placed", version, add_total)


def test_two_functions_cannot_raise_the_same_version(upcasts: Upcasts) -> None:
    with pytest.raises(SubscriptionConflictError, match="add_total already raises order_placed"):
        upcasts.add("order_placed", 1, double_total)
    upcasts.add("order_placed", 1, add_total)


def test_a_function_takes_the_place_of_the_one_that_it_replaces_as_its_module_runs_again(
    upcasts: Upcasts,
) -> None:
    def again(document: dict[str, Any]) -> dict[str, Any]:
        return {"total": 7}

    again.__qualname__ = add_total.__qualname__
    upcasts.add("order_placed", 1, again)

    assert upcasts.raise_version("order_placed", 1, 2, {}) == {"total": 7}


@pytest.mark.parametrize("function", [lambda _: None, lambda _: [], lambda it: raise_later(it)])
def test_an_upcast_must_return_a_dictionary(function: Any) -> None:
    upcasts = Upcasts()
    upcasts.add("order_placed", 1, function)

    with pytest.raises(UnreadablePayloadError, match="let it return the dict") as caught:
        upcasts.raise_version("order_placed", 1, 2, {})
    assert caught.value.event == "order_placed"
    assert caught.value.problems[0][0] == "version 1"
