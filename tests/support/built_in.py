"""The built-in events as the documentation lists them, which is what users rely on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "events.md"


class Row(NamedTuple):
    """An event in the table of the page; without helpers the two names are empty."""

    event: str
    meaning: str
    emitter: str
    decorator: str
    context: str


def rows_of(page: str) -> dict[str, Row]:
    """Return the rows of the table of events, by event."""
    tables = (line[1:-1].split("|") for line in re.findall(r"^\| `[a-z].*\|$", page, re.MULTILINE))
    rows = [Row(*(cell.strip(" `") for cell in cells)) for cells in tables if len(cells) == 5]
    return {row.event: row for row in rows}


BUILT_IN = rows_of(PAGE.read_text(encoding="utf-8"))
NAMES = {name for row in BUILT_IN.values() for name in row if name and name != row.meaning}
"""All that can be imported from the front door for the built-in events."""
