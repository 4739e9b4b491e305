"""Engines of both databases, for what differs between them."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest


@pytest.fixture(params=["sqlite", "postgresql"])
def any_engine(request: pytest.FixtureRequest) -> Any:
    """Return an engine of each database, without tables."""
    return request.getfixturevalue(
        "outbox_engine" if request.param == "sqlite" else "postgresql_engine"
    )


@pytest.fixture
def postgresql_engine() -> Any:
    """Return an engine of PostgreSQL for a schema of its own, which is removed; or skip."""
    from sqlalchemy import create_engine, text

    from support.outboxes import postgres_url

    url, schema = postgres_url(), f"madcrow_events_{uuid4().hex}"
    options = f"-c search_path={schema} -c synchronous_commit=off -c lock_timeout=10s"
    engine = create_engine(url, connect_args={"options": options})
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    yield engine
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()
