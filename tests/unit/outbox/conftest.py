"""Tests of the outbox need its extra; some are told for both databases."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

if find_spec("sqlalchemy") is None:
    collect_ignore_glob = ["*"]


@pytest.fixture(params=["sqlite", "postgresql"])
def any_engine(request: pytest.FixtureRequest) -> Any:
    """Return an engine of each database, without tables."""
    return request.getfixturevalue(
        "outbox_engine" if request.param == "sqlite" else "postgresql_engine"
    )


@pytest.fixture
def postgresql_engine() -> Any:
    """Return an engine of PostgreSQL for a schema of its own, or skip the test."""
    from support.outboxes import postgresql_schema

    with postgresql_schema() as engine:
        yield engine
