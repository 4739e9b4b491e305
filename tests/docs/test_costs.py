"""The page of the costs shows what the benchmark has measured, all of it and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measuring import Effort, Line, Measured
from benchmarks.page import FOLDER, PAGE, PICTURED, ROOT, as_text, pictures_on, write_page
from benchmarks.pictures import pictures_of
from benchmarks.rows import ROWS
from support.hooks import load_hook

costs = load_hook("costs")

TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
RESULTS = costs.results_in(ROOT / FOLDER)
WORK = "emit<br><small>compared with bare loop</small>"
AGAIN = "run `python -m tests.benchmarks --page` on each version of Python"


@pytest.fixture(scope="module")
def lines() -> dict[str, list[Line]]:
    """Return the lines of the benchmark, by row."""
    quick = Effort(is_quick=True)
    return {name: [*row(quick)] for name, row in ROWS.items()}


def measured_in(python: str) -> Iterator[tuple[str, str, int | None]]:
    for line in RESULTS[python]["lines"]:
        yield line["row"], line["work"], line["at"]


@pytest.mark.parametrize("python", RESULTS)
def test_the_results_have_each_line_of_the_benchmark(
    python: str, lines: dict[str, list[Line]]
) -> None:
    present = [(row, it.work, it.at) for row, of_row in lines.items() for it in of_row]
    assert [*measured_in(python)] == present, AGAIN
    assert RESULTS[python]["python"].startswith(f"{python}.")


def test_the_tables_have_each_line_of_the_benchmark(lines: dict[str, list[Line]]) -> None:
    rows, growth = costs.rows(RESULTS), costs.growth(RESULTS)
    for line in (it for of_row in lines.values() for it in of_row):
        if line.at is None:
            assert len(re.findall(rf">{re.escape(line.work)}(?:<br>|</th>)", rows)) == 1, AGAIN
        else:
            assert growth.count(f"| {line.work} |") == 1, AGAIN


@pytest.mark.parametrize("python", RESULTS)
def test_the_results_are_no_quick_ones(python: str) -> None:
    (costs,) = (it["costs"] for it in RESULTS[python]["lines"] if it["work"] == "emit, 1 handler")
    assert 2 < costs["madcrow"] / costs["bare loop"] < 3, AGAIN
    assert "takes two to\nthree times as long" in TEXT


def test_the_results_are_of_supported_pythons() -> None:
    assert {*RESULTS} <= {"3.11", "3.12", "3.13", "3.14"}
    assert PICTURED in RESULTS
    assert f"Python {PICTURED}" in TEXT


def test_the_page_has_a_place_for_each_table() -> None:
    for marker in (costs.ROWS, costs.GROWTH, costs.LIBRARIES):
        assert TEXT.count(marker) == 1
        assert marker not in costs.on_page_markdown(TEXT)
    assert costs.on_page_markdown("another page") == "another page"


def test_each_picture_is_shown_with_a_text_alternative() -> None:
    """Each curve has a picture, and no picture is left over."""
    shown = re.findall(r"!\[([^\]]*)\]\((\S+)\)", TEXT)
    names = [name for _, path in shown for name in pictures_on(f"({path})")]
    assert len(names) == len(shown)
    assert sorted(names) == sorted(it.stem for it in (ROOT / FOLDER).glob("*.svg"))
    for alternative, path in shown:
        assert len(alternative.split()) > 8, path
    curves = {work for _, work, at in measured_in(PICTURED) if at is not None}
    assert {re.sub(r"\W+", "-", work) for work in curves} <= {*names}


def result(work: str = "emit", **changes: Any) -> dict[str, Any]:
    line = {"part": "Emitting", "row": "emit", "work": work, "at": None, "base": "bare loop"}
    line |= {"bound": 2.1, "unit": "ns", "holds": True}
    return {**line, "costs": {"bare loop": 500, "madcrow": 1000, "pyee": 1500}, **changes}


def results(**of_python: list[dict[str, Any]]) -> Any:
    left_out = {"pyee": "no isolation", "blinker": "no order"}
    return {
        python.replace("_", "."): {
            "python": f"{python}.1".replace("_", "."),
            "libraries": {"pyee": "13.0.1"},
            "left out": left_out,
            "lines": lines,
        }
        for python, lines in {f"3{it}": lines for it, lines in of_python.items()}.items()
    }


def row_of(table: str) -> list[str]:
    """Return the cells of a table with one line, but for the row with the headings."""
    return re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", table.partition("</thead>")[2])


def test_a_row_shows_the_bound_what_was_measured_and_the_others() -> None:
    cells = row_of(costs.rows(results(_11=[result()])))
    assert cells == [WORK, "2.1", "2 (1\N{NO-BREAK SPACE}µs)", "pyee 3"]


def test_versions_of_python_are_beside_each_other() -> None:
    faster = result(bound=2.25, costs={"bare loop": 500, "madcrow": 1100, "pyee": 1000})
    table = costs.rows(results(_11=[result()], _12=[faster]))
    assert re.findall(r'"col">(.*?)<', table) == ["work", "bound", "3.11", "3.12"]
    assert row_of(table) == [
        *(
            WORK,
            "2.1<br>2.25 from 3.12 on",
            "2 (1\N{NO-BREAK SPACE}µs)",
            "2.2 (1.1\N{NO-BREAK SPACE}µs)",
        ),
        "pyee 2 to 3<br><strong>Faster:</strong> pyee on 3.12 (no isolation)",
    ]


def test_a_row_that_misses_its_bound_says_so() -> None:
    missing = result(bound=1.5, holds=False)
    assert "<strong>2 (1\N{NO-BREAK SPACE}µs), misses</strong>" in row_of(
        costs.rows(results(_11=[missing]))
    )


def test_a_library_that_is_faster_says_what_it_leaves_out() -> None:
    """Also if it is what the row is compared with."""
    ahead = result(base="blinker", costs={"blinker": 800, "madcrow": 1000, "pyee": 900})
    assert row_of(costs.rows(results(_11=[ahead])))[-1] == (
        "pyee 1.12<br><strong>Faster:</strong> pyee (no isolation); blinker (no order)"
    )


def test_bytes_are_smaller_and_have_no_base() -> None:
    bytes_of = result(base=None, bound=1200, unit="bytes", costs={"madcrow": 1100, "pyee": 90})
    assert row_of(costs.rows(results(_11=[bytes_of]))) == [
        *("emit", "1,200 bytes", "1,100\N{NO-BREAK SPACE}bytes"),
        "pyee 90<br><strong>Smaller:</strong> pyee (no isolation)",
    ]


def test_a_row_without_others_and_without_a_bound_is_short() -> None:
    alone = result(bound=None, costs={"bare loop": 500, "madcrow": 1000})
    assert row_of(costs.rows(results(_11=[alone]))) == [
        WORK,
        "none",
        "2 (1\N{NO-BREAK SPACE}µs)",
    ]


def test_a_curve_has_its_first_and_its_last_point() -> None:
    points = [
        result(base=None, at=at, costs={"madcrow": 900 * at}) for at in (1, 10, 100, 1000, 10_000)
    ]
    row = "| emit | 1 → 10,000 | 900\N{NO-BREAK SPACE}ns → 9\N{NO-BREAK SPACE}ms |"
    assert costs.growth(results(_11=points)).endswith(f"{row}\n")


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    """And the pictures that the page shows are written on one version only."""
    quick = Effort(is_quick=True)
    made = [
        Measured(row, line, dict.fromkeys(line.contenders, 1240.04))
        for row in ("scope", "growth")
        for line in ROWS[row](quick)
    ]
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / PAGE).parent.mkdir(parents=True)
    work = next(it.line.work for it in made if it.line.at is not None)
    name = re.sub(r"\W+", "-", work)
    (tmp_path / PAGE).write_text(f"![Text](../assets/costs/{name}.svg)", encoding="utf-8")

    assert [it.name for it in write_page(made, tmp_path, "3.13")] == ["3.13.json"]
    written = write_page(made, tmp_path, PICTURED)

    assert [it.name for it in written] == [f"{PICTURED}.json", f"{name}.svg"]
    assert written[1].read_text(encoding="utf-8") == pictures_of(made)[name]
    read = costs.results_in(tmp_path / FOLDER)
    assert [*read] == [PICTURED, "3.13"]
    assert read["3.13"] == json.loads(as_text(made))
    assert "1 (1.24\N{NO-BREAK SPACE}µs)" in costs.rows(read)
    assert "no isolation" in costs.libraries(read)
