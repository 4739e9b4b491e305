"""The line that has called the package, and what it is told."""

from __future__ import annotations

import _thread
import threading
import warnings
from typing import Any

import pytest

from support.inside import Place, calling_place, warn_once

pytestmark = pytest.mark.guarantee("N8")


def test_what_no_line_has_called_has_a_place_too() -> None:
    """As a function of the package that a thread calls, below which there is nothing."""
    found: list[Place] = []
    done = threading.Event()
    names = {"__name__": "madcrow_events.made_up", "found": found, "place": calling_place}
    exec("def call(done): found.append(place()); done.set()", names)  # noqa: S102  # no line of ours
    call: Any = names["call"]
    _thread.start_new_thread(call, (done,))
    assert done.wait(5)
    assert found == [("sys", 1, "sys")]


def test_code_without_a_module_has_a_place() -> None:
    names: dict[str, Any] = {"place": calling_place}
    exec(compile("\nfound = place()", "a file", "exec"), names)  # noqa: S102  # as tools do
    assert names["found"] == ("a file", 2, "builtins")


def test_the_memory_of_places_is_bounded() -> None:
    warned: dict[Any, object] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for line in range(2500):
            warn_once("use the other", Place("a file", line, "a_module"), warned)
            assert len(warned) <= 1000
    assert len(caught) == 2500
