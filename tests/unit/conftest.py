"""Every way of emitting, for tests that are told in each."""

from __future__ import annotations

import logging

import pytest

from madcrow_events import EventDispatcher
from support.ways import KINDS, Kind, Way


@pytest.fixture(params=KINDS, ids=str)
def way(
    request: pytest.FixtureRequest, dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> Way:
    kind: Kind = request.param
    if kind.debug:
        caplog.set_level(logging.DEBUG, logger="madcrow_events")
    return Way(kind, dispatcher)
