"""The page of wrong first lines says of each what Python and type checkers say, and what works.

Python says it in messages that name the fix (E4, E5, H1, N9, N10).
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from madcrow_events import madcrow_signals
from support.checkers import each_checker
from support.fences import fences_in

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "first-lines.md"
TEXT = PAGE.read_text(encoding="utf-8")
(BEFORE,) = [fence.text for fence in fences_in(TEXT)]

BELOW = {
    "": "",
    "a function": "def handler(context: OrderPlaced) -> None: ...",
    "a class": "class Sent(BaseEventContext):\n    order_id: int\nSent(order_id=98765)",
    "a class without a base": "class Sent: ...",
}
"""What is below a line that stands above something."""

IN_ASYNC = " in an async function"

CODES = {
    "mypy": re.compile(r"line_(\d+)\.py:\d+: error: .*\[([a-z-]+)\]$", re.MULTILINE),
    "pyright": re.compile(r"line_(\d+)\.py:[\d:]+ - error: (?s:.*?)\((report\w+)\)$", re.MULTILINE),
}
"""The file and the code of each error in what a checker prints."""

AWAITING = "import asyncio\nfrom madcrow_events import emit_event_async\nasyncio.run"


class Row(NamedTuple):
    """What a table says of a line."""

    wrong: str
    right: str
    python: str
    mypy: str
    pyright: str


ROW = re.compile(
    r"^\| (.+)<br>right: (.+) \| (.+)<br>mypy(?:, pyright)?: (.+?)(?:; pyright: (.+))? \|$",
    re.MULTILINE,
)
ROWS = [Row(*row[:-1], row[-1] or row[-2]) for row in ROW.findall(TEXT)]
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.wrong)


def code_of(cell: str) -> str:
    line, _, above = cell.removesuffix(IN_ASYNC).partition(" above ")
    code = f"{line.strip('`')}\n{BELOW[above]}".strip().replace("(...)", "(order_id=98765)")
    if cell.endswith(IN_ASYNC):
        return f"import asyncio\nasync def run() -> None:\n    {code}\nasyncio.run(run())"
    return code


def said_of(code: str) -> str:
    """Return the error of code that runs after the first block of the page."""
    namespace: dict[str, Any] = {"__name__": "shop"}
    with madcrow_signals.isolated(empty=True), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        exec(BEFORE, namespace)  # noqa: S102  # running the page is the point
        try:
            exec(code, namespace)  # noqa: S102  # likewise
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return "".join(f"{it.category.__name__}: {it.message}" for it in warned) or "nothing"


def is_shown(said: str, cell: str) -> bool:
    pattern = re.sub(r"(\\ )?…(\\ )?", ".*", re.escape(cell.replace("`", "")))
    return re.fullmatch(pattern, said, re.DOTALL) is not None


def test_each_row_is_read() -> None:
    assert len(ROWS) == TEXT.count("\n| `") > 0


@pytest.mark.guarantee("E4")
@pytest.mark.guarantee("E5")
@pytest.mark.guarantee("H1")
@pytest.mark.guarantee("N9")
@pytest.mark.guarantee("N10")
@each_row
def test_a_wrong_line_is_told_what_the_page_says(row: Row) -> None:
    """No value is shown; where async handlers are awaited, the same is said."""
    code = code_of(row.wrong)
    codes = [code]
    if re.match(r"[\w.]*emit\(|emit_event", code):
        codes.append(f"{AWAITING}({code.replace('(', '_async(', 1)})")
    for code in codes:
        said = said_of(code)
        assert is_shown(said, row.python), said
        assert "98765" not in said


@each_row
def test_the_right_line_works(row: Row) -> None:
    assert said_of(code_of(row.right)) == "nothing"


@each_checker
@pytest.mark.once
@pytest.mark.guarantee("H4")
def test_checkers_say_what_the_page_says(check: Any, tmp_path: Path) -> None:
    """They find nothing in the right lines."""
    checker = check.__name__.removeprefix("run_")
    says = {row.right: "nothing" for row in ROWS} | {
        row.wrong: getattr(row, checker) for row in ROWS
    }
    for number, cell in enumerate(says):
        file = tmp_path / f"line_{number}.py"
        file.write_text(f"{BEFORE}\n\n{code_of(cell)}\n", encoding="utf-8")

    outcome = check(tmp_path)

    found: dict[str, set[str]] = {cell: set() for cell in says}
    for number, code in CODES[checker].findall(outcome.stdout):
        found[list(says)[int(number)]].add(code)
    assert found == {cell: set(re.findall(r"`([\w-]+)`", said)) for cell, said in says.items()}
