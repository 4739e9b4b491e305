"""Pictures of what was measured: bars for the lines of a row, curves for what grows.

A picture has its own ground, so that it is readable on any page, and darker colours where the
reader's system is dark.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from .measuring import OURS, Measured
from .table import number

WIDTH = 720
LABELS = 190  # the width of the column of names
BAR, GAP, TITLE = 18, 6, 34
PLOT_HEIGHT = 300
# Ours comes first.
COLOURS = (
    *("#2f81c9", "#7f8c8d", "#d1780f", "#1f9d78", "#b85c9e", "#8f8a00", "#7a6fd0", "#c0504d"),
    *("#2aa5b8", "#a0764a", "#6b9a2d"),
)
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2933 }
.ground { fill: #ffffff } .title { font-weight: 600 } .quiet { fill: #5b6673; font-size: 12px }
.bar { fill: #b9c3cd } .ours { fill: #2f81c9 } .bound { stroke: #c0392b; stroke-width: 2 }
.grid { stroke: #dde3e8 }
@media (prefers-color-scheme: dark) {
text { fill: #e4e9ee } .ground { fill: #1b2027 } .quiet { fill: #9fabb7 }
.bar { fill: #56626e } .ours { fill: #4ea1e8 } .bound { stroke: #ff7b6b } .grid { stroke: #333c46 }
}
"""


def draw(results: Sequence[Measured], folder: Path) -> list[Path]:
    """Write the pictures, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, picture in pictures_of(results).items():
        paths.append(folder / f"{name}.svg")
        paths[-1].write_text(picture, encoding="utf-8")
    return paths


def pictures_of(results: Sequence[Measured]) -> dict[str, str]:
    """Return the pictures by name: of each row, and of each curve."""
    pictures = {
        row: bars([*of_row])
        for row, of_row in groupby((it for it in results if it.line.at is None), lambda it: it.row)
    }
    for work, points in groupby(
        (it for it in results if it.line.at is not None), lambda it: it.line.work
    ):
        pictures[re.sub(r"\W+", "-", work)] = curves(work, [*points])
    return pictures


def svg(height: float, label: str, parts: Iterator[str]) -> str:
    """Return a picture of these parts."""
    frame = f'viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}"'
    ground = f'<rect class="ground" width="{WIDTH}" height="{height:.0f}" rx="6"/>'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" {frame}>'
    return "\n".join([opening, f"<style>{STYLE}</style>", ground, *parts, "</svg>\n"])


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    """Return a piece of text."""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Return a straight line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def box(kind: str, x: float, y: float, width: float, height: float) -> str:
    """Return a box; what it is filled with follows from its kind, which may be a colour."""
    fill = f'fill="{kind}"' if kind.startswith("#") else f'class="{kind}"'
    return (
        f'<rect {fill} x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2"/>'
    )


def bars(results: Sequence[Measured]) -> str:
    """Return a picture with a bar for each contender of each line, the least first."""
    height = sum(TITLE + len(it.costs) * (BAR + GAP) for it in results) + 12

    def parts() -> Iterator[str]:
        y = 0.0
        for measured in results:
            yield text(12, y + 22, measured.line.work, "title")
            y += TITLE
            yield from bars_of(measured, y)
            y += len(measured.costs) * (BAR + GAP)

    return svg(height, ", ".join(it.line.work for it in results), parts())


def bars_of(measured: Measured, top: float) -> Iterator[str]:
    """Yield the bars of one line."""
    bound, base, unit = measured.line.bound, measured.line.base, measured.line.unit
    names = sorted(measured.costs, key=lambda name: measured.costs[name])
    most = max(*map(measured.ratio, names), bound or 0)
    scale = (WIDTH - LABELS - 150) / most
    for index, name in enumerate(names):
        y, ratio = top + index * (BAR + GAP), measured.ratio(name)
        kind = "ours" if name == OURS else "bar"
        shown = f"{number(measured.costs[name])} {unit}"
        if base is not None:
            shown = f"{number(ratio)} x ({shown})"
        yield text(LABELS - 8, y + 14, name, "title" if name == OURS else "", "end")
        yield box(kind, LABELS, y, max(ratio * scale, 1), BAR)
        yield text(LABELS + ratio * scale + 6, y + 14, shown, "quiet")
        if name == OURS and bound is not None:
            x = LABELS + bound * scale
            yield line(x, y - 2, x, y + BAR + 2, "bound")


def curves(work: str, points: Sequence[Measured]) -> str:
    """Return a picture with a curve for each contender, on two logarithmic axes."""
    at = [it.line.at or 1 for it in points]
    costs = [cost for it in points for cost in it.costs.values()]
    low, high = math.floor(math.log10(min(costs))), math.ceil(math.log10(max(costs)))
    left, right, top = 90, WIDTH - 165, 40
    bottom = top + PLOT_HEIGHT

    def x_of(place: float) -> float:
        return left + (right - left) * math.log(place / at[0]) / (math.log(at[-1] / at[0]) or 1)

    def y_of(cost: float) -> float:
        return bottom - PLOT_HEIGHT * (math.log10(cost) - low) / max(high - low, 1)

    def parts() -> Iterator[str]:
        yield text(12, 22, f"{work}, in {points[0].line.unit}", "title")
        for power in range(low, max(high, low + 1) + 1):
            yield line(left, y_of(10**power), right, y_of(10**power), "grid")
            yield text(left - 8, y_of(10**power) + 4, f"{10**power:,}", "quiet", "end")
        for place in at:
            yield text(x_of(place), bottom + 20, f"{place:,}", "quiet", "middle")
        names = sorted(points[0].costs, key=lambda name: -points[-1].costs[name])
        free, left_over = float(top), len(names) - 1
        others = (name for name in points[0].costs if name != OURS)
        colours = {OURS: COLOURS[0], **dict(zip(others, COLOURS[1:], strict=False))}
        for name in names:
            path = " ".join(
                f"{x_of(place):.1f},{y_of(it.costs[name]):.1f}"
                for place, it in zip(at, points, strict=True)
            )
            drawn = f'stroke="{colours[name]}" stroke-width="{3 if name == OURS else 1.5}"'
            yield f'<polyline fill="none" {drawn} points="{path}"/>'
            free = max(free, min(y_of(points[-1].costs[name]), bottom - 17 * left_over))
            left_over -= 1
            yield box(colours[name], right + 8, free - 5, 10, 10)
            yield text(right + 24, free + 4, name, "title" if name == OURS else "")
            free += 17

    return svg(bottom + 36, work, parts())
