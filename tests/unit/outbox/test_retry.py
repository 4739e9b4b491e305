"""When a delivery that failed is tried again."""

from __future__ import annotations

from datetime import timedelta

import pytest

from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.outbox import Retry, RetryLater

NO_WAITS = [True, "1", -1, float("nan"), float("inf"), 367 * 24 * 3600, None]


@pytest.mark.parametrize("attempts", [0, -1, True, 1.0, "3", None])
def test_attempts_are_a_positive_int(attempts):
    """The error says what no second attempt is."""
    with pytest.raises(InvalidOptionError, match="1 for no second attempt") as caught:
        Retry(attempts=attempts)
    assert caught.value.option == "attempts"


@pytest.mark.parametrize("name", ["wait_initial", "wait_max", "wait_jitter"])
@pytest.mark.parametrize("value", NO_WAITS)
def test_waits_are_seconds_up_to_a_year(name, value):
    """None of them may be endless."""
    with pytest.raises(InvalidOptionError, match=f"{name} must be a number of seconds") as caught:
        Retry(**{name: value})
    assert caught.value.option == name


@pytest.mark.parametrize("classes", [ValueError, [ValueError], (1,), (int,), ("ValueError",), None])
def test_give_up_on_is_a_tuple_of_classes_of_exceptions(classes):
    """One class alone must be written as a tuple, too."""
    with pytest.raises(InvalidOptionError, match=r"such as \(PermissionError,\)") as caught:
        Retry(give_up_on=classes)
    assert caught.value.option == "give_up_on"


def test_waits_double_up_to_the_longest():
    """However many attempts there were, nothing overflows."""
    retry = Retry(wait_initial=2, wait_max=10, wait_jitter=0)
    assert [retry.wait_after(it) for it in (1, 2, 3, 4, 5000)] == [2, 4, 8, 10, 10]


def test_the_jitter_comes_on_top():
    """So deliveries that failed together do not come back together."""
    retry = Retry(wait_initial=3600, wait_max=10, wait_jitter=1)
    waits = {retry.wait_after(1) for _ in range(50)}
    assert len(waits) > 1
    assert all(10 <= it <= 11 for it in waits)


@pytest.mark.parametrize(
    ("delay", "seconds"), [(0, 0), (2.5, 2.5), (timedelta(minutes=1), 60), (timedelta(0), 0)]
)
def test_a_handler_may_say_when_it_wants_to_be_called_again(delay, seconds):
    """In seconds or as a timedelta; at once is a time, too."""
    assert RetryLater(delay).seconds == seconds


@pytest.mark.parametrize("delay", [*NO_WAITS, timedelta(seconds=-1), timedelta(days=1000)])
def test_a_delay_that_is_impossible_is_refused(delay):
    """The error says what is possible."""
    with pytest.raises(InvalidOptionError, match="from 0 to 31622400 seconds") as caught:
        RetryLater(delay)
    assert caught.value.option == "delay"
