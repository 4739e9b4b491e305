"""What a transaction has emitted, on its way to the COMMIT."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from madcrow_events.outbox import NotSerialisableError
from madcrow_events.outbox._writing import Writing
from support.outboxes import Order, keyed_outbox, sqlite_engine


def test_nothing_is_written_twice():
    """Nor is a statement made for nothing."""
    writing = Writing(keyed_outbox().tables.event, _no_statements, lambda: None, None)
    writing.write(None)
    assert writing.mark() == 0


def _no_statements(_connection):
    raise AssertionError("there is nothing to write")


def test_the_text_of_an_error_that_is_not_ours_is_not_repeated(tmp_path):
    """It may show values of the context; the commit says what class it has."""
    outbox = keyed_outbox(encode=lambda it: it.index("?"), decode=str)
    engine = sqlite_engine(tmp_path)
    outbox.metadata.create_all(engine)
    with Session(engine) as session:
        with pytest.raises(ValueError, match="substring"):
            outbox.emit(session, Order(number=1))
        with pytest.raises(NotSerialisableError, match=r"could not be written: ValueError$"):
            session.commit()
    engine.dispose()
