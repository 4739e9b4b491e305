"""The pytest plugin of madcrow-events: fixtures, and handlers that no test leaves behind.

It is loaded into every pytest run of an environment, so it imports nothing of
the package until a fixture is used. It has no assertions: PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from sqlalchemy import Engine

    from madcrow_events import EventDispatcher, SignalRegistry
    from madcrow_events.testing import Recorder


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the ini options."""
    parser.addini(
        "madcrow_events_isolate",
        "each test starts with the event handlers that were registered at import, and leaves none",
        type="bool",
        default=False,
    )
    parser.addini(
        "madcrow_events_validate",
        "each dispatcher compares keywords with the event's model, unless it says validate=False",
        type="bool",
        default=False,
    )


def pytest_configure(config: pytest.Config) -> None:
    """Isolate every test, and let dispatchers validate, where the ini options say so."""
    if config.getini("madcrow_events_validate"):
        # Here, where a run asks for it.
        from madcrow_events.dispatcher._dispatcher import validate_by_default

        before = validate_by_default(True)

        def restore() -> None:
            validate_by_default(before)

        config.add_cleanup(restore)
    if config.getini("madcrow_events_isolate"):
        config.pluginmanager.register(_Isolation(), "madcrow_events_isolation")


class _Isolation:
    @pytest.fixture(autouse=True)
    def _isolate_events(self) -> Iterator[None]:
        from madcrow_events import madcrow_signals  # when a test asks for it

        with madcrow_signals.isolated():
            yield


@pytest.fixture
def isolated_signals() -> Iterator[SignalRegistry]:
    """Return the default registry without handlers. What the test changes is undone after it."""
    from madcrow_events import madcrow_signals  # when a test asks for it

    with madcrow_signals.isolated(empty=True) as signals:
        yield signals


@pytest.fixture
def event_dispatcher(isolated_signals: SignalRegistry) -> Iterator[EventDispatcher]:
    """Return a dispatcher for `isolated_signals`. It is the default dispatcher during the test."""
    from madcrow_events import EventDispatcher, set_event_dispatcher  # when a test asks for it

    with EventDispatcher(isolated_signals) as dispatcher:
        set_event_dispatcher(dispatcher)
        yield dispatcher


@pytest.fixture
def recorded_events(request: pytest.FixtureRequest) -> Iterator[Recorder]:
    """Record what the test emits on the default registry."""
    if "isolated_signals" in request.fixturenames:
        request.getfixturevalue("isolated_signals")  # first, because it removes all handlers
    from madcrow_events.testing import record_events  # when a test asks for it

    with record_events() as events:
        yield events


@pytest.fixture
def outbox_engine(tmp_path: Path) -> Iterator[Engine]:
    """Return an engine of SQLAlchemy for a new file of SQLite, which waits for no disk."""
    from sqlalchemy import create_engine, event  # when a test asks for it

    engine = create_engine(f"sqlite:///{tmp_path / 'outbox.db'}")

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")

    yield engine
    engine.dispose()
