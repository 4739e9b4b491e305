"""The API reference has every public name, once; the tables of names and events are complete."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

import madcrow_events
from support.built_in import BUILT_IN
from support.hooks import load_hook

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


api, built_in_events = load_hook("api"), load_hook("built_in_events")


def test_every_public_name_is_described_once() -> None:
    public = {*api.public_names()}
    described = Counter(
        name
        for page in (REFERENCE / "api").glob("*.md")
        for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert public - described.keys() == set()
    assert described.keys() - public == set()
    assert [name for name, count in described.items() if count > 1] == []


def test_a_public_name_is_in_the_table_with_where_to_import_it_from() -> None:
    table = api.names()
    for full, module in api.public_names().items():
        name = full.removeprefix(f"{module}.")
        assert table.count(f"| [`{name}`][{full}] | `{module}` |\n") == 1


def test_a_name_that_two_modules_have_is_in_the_table_for_each() -> None:
    """The things are two; what a front door hands on is one."""
    rows = re.findall(r"^\| \[`EventsMiddleware`\].*\| `(.+)` \|$", api.names(), re.MULTILINE)
    assert rows == ["madcrow_events.contrib.asgi", "madcrow_events.contrib.wsgi"]
    assert api.names().count("| [`Emission`]") == 1


def test_a_name_is_imported_from_the_front_door_if_it_is_there() -> None:
    names = api.public_names()
    assert [name for name in madcrow_events.__all__ if f"madcrow_events.{name}" not in names] == [
        "__version__"
    ]


@pytest.mark.parametrize("marker", ["built-in events", "fields of the built-in events"])
def test_the_page_of_the_events_has_one_place_for_each_table(marker: str) -> None:
    assert (REFERENCE / "events.md").read_text(encoding="utf-8").count(f"<!-- {marker} -->") == 1


@pytest.mark.parametrize("event", BUILT_IN)
def test_a_built_in_event_is_in_the_tables_with_its_helpers_and_fields(event: str) -> None:
    row = re.search(rf"^\| \[`{event}`\].*$", built_in_events.events(), re.MULTILINE)
    assert row
    names = re.findall(r"`(\w+)`", row[0])
    assert names == [event, *filter(None, (BUILT_IN[event].emitter, BUILT_IN[event].decorator))]

    section = built_in_events.fields().partition(f"### `{event}` ")[2].partition("\n### ")[0]
    model = getattr(madcrow_events, BUILT_IN[event].context)
    assert model.__name__ in section
    fields = model.model_fields.keys() - madcrow_events.BaseEventContext.model_fields.keys()
    assert {*re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)} == fields
