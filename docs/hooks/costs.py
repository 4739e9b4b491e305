"""Write the tables of the costs as the documentation is built.

They are made from the results that `python -m tests.benchmarks --page` has written, so that the
page cannot say anything else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

FOLDER = Path(__file__).parents[1] / "assets" / "costs"
OURS = "madcrow"
HUNDRED, THOUSAND = 100, 1000

ROWS = "<!-- costs: rows -->"
"""Where the tables of the rows belong, on a page."""

GROWTH = "<!-- costs: growth -->"
"""Where the table of what grows belongs, on a page."""

LIBRARIES = "<!-- costs: libraries -->"
"""Where the table of the other libraries belongs, on a page."""

Results: TypeAlias = dict[str, dict[str, Any]]
"""The results by the version of Python, such as 3.11, the oldest first."""

Versions: TypeAlias = dict[str, dict[str, Any]]
"""One line of the benchmark, by the version of Python."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers by the tables; mkdocs calls this for each page."""
    made = ((ROWS, rows), (GROWTH, growth), (LIBRARIES, libraries))
    for marker, table in made:
        if marker in markdown:
            markdown = markdown.replace(marker, table(results_in(FOLDER)))
    return markdown


def results_in(folder: Path) -> Results:
    """Return the results that are in a folder."""
    files = sorted(folder.glob("3.*.json"), key=lambda file: int(file.stem.partition(".")[2]))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def rows(results: Results) -> str:
    """Return a table for each part of the benchmark.

    Each line has two rows, because the second one needs the whole width: what the others cost.
    """
    left_out = left_out_in(results)
    names = ("work", "bound", *results)
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    parts = []
    for part, lines in _parts(results, is_curve=False):
        body = "\n".join(_line(versions, [*results], left_out) for versions in lines)
        table = f"<table>\n<thead><tr>{head}</tr></thead>\n{body}\n</table>"
        parts.append(f'### {part}\n\n<div class="costs">\n{table}\n</div>\n')
    return "\n".join(parts)


def _line(versions: Versions, pythons: list[str], left_out: dict[str, str]) -> str:
    """Return the rows of one line of the benchmark."""
    line = _any(versions)
    work, base = escape(line["work"]), line["base"]
    if base is not None:
        work += f"<br><small>compared with {escape(base)}</small>"
    cells = [_bound(versions), *(_measured(versions.get(python)) for python in pythons)]
    row = f'<tr><th scope="row">{work}</th>{"".join(f"<td>{it}</td>" for it in cells)}</tr>'
    others = "<br>".join(filter(None, [_others(versions), _faster(versions, left_out)]))
    if others:
        row += f'\n<tr><td colspan="{len(cells) + 1}">{others}</td></tr>'
    return f"<tbody>{row}</tbody>"


def growth(results: Results) -> str:
    """Return a table of the least and the greatest point of each curve."""
    body = []
    for _, lines in _parts(results, is_curve=True):
        for work, points in groupby(lines, lambda versions: _any(versions)["work"]):
            first, *_, last = points
            cells = (
                f"{_cost(first[python])} → {_cost(last[python])}" if python in first else ""
                for python in results
            )
            body.append([work, f"{_any(first)['at']:,} → {_any(last)['at']:,}", *cells])
    return _head("what is measured", "from → to", *results) + _body(body)


def libraries(results: Results) -> str:
    """Return a table of what the other libraries leave out, and of their versions."""
    head = _head("library", "what it leaves out")
    used = {f"{name} {it}" for of in results.values() for name, it in of["libraries"].items()}
    pythons = ", ".join(of["python"] for of in results.values())
    measured = f"Measured on Python {pythons}, with {', '.join(sorted(used, key=str.lower))}."
    return f"{head}{_body(left_out_in(results).items())}\n{measured}\n"


def left_out_in(results: Results) -> dict[str, str]:
    """Return what each of the other libraries leaves out."""
    return {name: it for of in results.values() for name, it in of["left out"].items()}


def _parts(results: Results, *, is_curve: bool) -> Iterator[tuple[str, list[Versions]]]:
    """Yield the parts of the benchmark, each with its lines."""
    found: dict[tuple[str, str, int | None], Versions] = {}
    for python, of in results.items():
        for line in of["lines"]:
            if (line["at"] is not None) is is_curve:
                found.setdefault((line["part"], line["work"], line["at"]), {})[python] = line
    for part, lines in groupby(found.items(), lambda it: it[0][0]):
        yield part, [versions for _, versions in lines]


def _any(versions: Versions) -> dict[str, Any]:
    return next(iter(versions.values()))


def _head(*names: str) -> str:
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}\n"


def _body(cells: Iterable[Iterable[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def _bound(versions: Versions) -> str:
    """Return the bound of a line, and from which version of Python on it is another one."""
    shown: list[str] = []
    last = None
    for python, line in versions.items():
        unit = f" {line['unit']}" if line["base"] is None else ""
        bound = "none" if line["bound"] is None else f"{line['bound']:,g}{unit}"
        if bound != last:
            shown.append(f"{bound} from {python} on" if shown else bound)
        last = bound
    return "<br>".join(shown)


def _measured(line: dict[str, Any] | None) -> str:
    """Return what was measured of this package, and whether that misses the bound."""
    if line is None:
        return ""
    cost = _cost(line)
    shown = cost if line["base"] is None else f"{_number(_ratio(line, OURS))} ({cost})"
    return shown if line["holds"] else f"<strong>{shown}, misses</strong>"


def _others(versions: Versions) -> str:
    """Return the costs of all others, each from the least to the greatest of the versions."""
    names = {name: None for line in versions.values() for name in line["costs"]}
    shown = []
    for name in names:
        lines = [it for it in versions.values() if name in it["costs"] and name != it["base"]]
        if name != OURS and lines:
            ratios = [_ratio(it, name) for it in lines]
            least, most = _number(min(ratios)), _number(max(ratios))
            shown.append(f"{name} {least if least == most else f'{least} to {most}'}")
    return ", ".join(shown)


def _faster(versions: Versions, left_out: dict[str, str]) -> str:
    """Return which libraries cost less, on which Python, and what they leave out."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, left in left_out.items():
        pythons = [
            python
            for python, line in versions.items()
            if line["costs"].get(name, float("inf")) < line["costs"][OURS]
        ]
        if pythons:
            where = "" if len(pythons) == len(versions) else f" on {', '.join(pythons)}"
            reasons.setdefault((where, left), []).append(name)
    what = "Smaller" if _any(versions)["unit"] == "bytes" else "Faster"
    shown = [f"{', '.join(names)}{where} ({left})" for (where, left), names in reasons.items()]
    return f"<strong>{what}:</strong> {'; '.join(shown)}" if shown else ""


def _ratio(line: dict[str, Any], name: str) -> float:
    """Return a cost as a multiple of the base, or as it is."""
    base, costs = line["base"], line["costs"]
    ratio: float = costs[name] / (1 if base is None else costs[base])
    return ratio


def _number(value: float) -> str:
    """Return a number with three digits or more."""
    return f"{value:,.0f}" if value >= HUNDRED else f"{value:.3g}"


def _cost(line: dict[str, Any]) -> str:
    """Return the cost of this package with its unit, in a unit that keeps it short."""
    cost, unit = line["costs"][OURS], line["unit"]
    larger = {"ns": "µs", "µs": "ms", "ms": "s"}
    while cost >= THOUSAND and unit in larger:
        cost, unit = cost / THOUSAND, larger[unit]
    return f"{_number(cost)}\N{NO-BREAK SPACE}{unit}"
