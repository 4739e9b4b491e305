"""What the tests share: a registry that forgets, and accounts in an empty folder."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from accounts import Accounts, service
from argon2 import PasswordHasher

from madcrow_events import EventDispatcher, get_event_dispatcher, madcrow_signals
from madcrow_events.event_handlers import register_all_handlers


@pytest.fixture
def dispatcher() -> Iterator[EventDispatcher]:
    """Return a dispatcher with the ready-made handlers; what they remember is forgotten."""
    with madcrow_signals.isolated():
        register_all_handlers()
        yield get_event_dispatcher()


@pytest.fixture
def accounts(
    tmp_path: Path, dispatcher: EventDispatcher, monkeypatch: pytest.MonkeyPatch
) -> Accounts:
    """Return accounts, of which there are none, whose passwords are hashed fast."""
    quick = partial(PasswordHasher, time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(service, "PasswordHasher", quick)
    return Accounts(tmp_path, dispatcher)
