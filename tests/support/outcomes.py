"""What came of an emission, and what was logged of it."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from madcrow_events import Emission


def values(emission: Emission[Any]) -> list[Any]:
    return [result.value for result in emission.results]


def errors(emission: Emission[Any]) -> list[type[BaseException]]:
    return [type(failure.exception) for failure in emission.failures]


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
