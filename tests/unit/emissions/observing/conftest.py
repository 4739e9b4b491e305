"""Observers that take notes."""

from __future__ import annotations

import pytest

from madcrow_events import EventDispatcher
from support.observers import Notes


@pytest.fixture
def story() -> list[str]:
    return []


@pytest.fixture
def notes(dispatcher: EventDispatcher, story: list[str]) -> Notes:
    notes = Notes(story)
    dispatcher.add_observer(notes)
    return notes
