"""Tests of the outbox need its extra."""

from importlib.util import find_spec

if find_spec("sqlalchemy") is None:
    collect_ignore_glob = ["*"]
