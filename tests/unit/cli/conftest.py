"""Tests of the command need its extra."""

from importlib.util import find_spec

if find_spec("rich") is None or find_spec("typer") is None:
    collect_ignore_glob = ["*"]
