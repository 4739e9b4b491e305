"""Handlers that take a session, and workers whose engine can make none of that kind."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from madcrow_events import BaseEventContext, InvalidOptionError, SignalRegistry
from madcrow_events.outbox import Outbox, Worker
from madcrow_events.testing import drain_outbox

pytest.importorskip("aiosqlite")

from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine


class OrderPlaced(BaseEventContext):
    number: int


def outbox_and_engines(folder):
    """Return an outbox with a handler for each kind of session, and both kinds of engine."""
    signals = SignalRegistry()
    signals.signal("order_placed", context=OrderPlaced)
    outbox = Outbox("/shop", signals=signals)

    @outbox.on("order_placed", id="plain")
    def plain(context: OrderPlaced, session: Session) -> None:
        print("plain", session.in_transaction())

    @outbox.on("order_placed", id="async")
    async def with_async_session(context: OrderPlaced, session: AsyncSession) -> None:
        print("async", session.in_transaction())

    path = folder / "events.db"
    engine = create_engine(f"sqlite:///{path}")
    outbox.metadata.create_all(engine)
    return outbox, engine, create_async_engine(f"sqlite+aiosqlite:///{path}")


def test_an_engine_of_the_other_kind_is_refused_when_the_worker_starts(tmp_path):
    """The error names the handler, what it needs, and the two ways out."""
    outbox, engine, async_engine = outbox_and_engines(tmp_path)
    told = "async takes AsyncSession, which needs an AsyncEngine: .* let the handler take Session"
    with pytest.raises(InvalidOptionError, match=told) as raised:
        Worker(outbox, engine).run(once=True)
    assert raised.value.option == "engine"
    told = "plain takes Session, which needs an Engine: .* let the handler take AsyncSession"
    with pytest.raises(InvalidOptionError, match=told), Worker(outbox, async_engine):
        pass
    with pytest.raises(InvalidOptionError, match=told):
        drain_outbox(outbox, async_engine)
    assert outbox.inspect(engine).status().handlers == ()
    engine.dispose()


def test_an_engine_that_commits_each_statement_is_refused(tmp_path):
    """What a handler has written before it fails could not be rolled back."""
    outbox, engine, async_engine = outbox_and_engines(tmp_path)
    unsafe = create_engine(engine.url, isolation_level="AUTOCOMMIT")
    with pytest.raises(InvalidOptionError, match="choose another isolation level") as raised:
        Worker(outbox, unsafe, handlers="plain").run(once=True)
    assert raised.value.option == "engine"
    Worker(outbox, unsafe, handlers="other").run(once=True)
    for it in (engine, unsafe, async_engine.sync_engine):
        it.dispose()


def test_two_workers_share_the_handlers_out(tmp_path, capsys):
    """Each has an engine for its own."""
    outbox, engine, async_engine = outbox_and_engines(tmp_path)
    with Session(engine) as session:
        outbox.emit(session, OrderPlaced(number=1))
        session.commit()
    Worker(outbox, engine, handlers="plain").run(once=True)
    Worker(outbox, async_engine, handlers="async").run(once=True)
    assert capsys.readouterr().out == "plain True\nasync True\n"
    engine.dispose()
