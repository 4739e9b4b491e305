"""What the page of the costs needs: the results on one Python, and pictures of some of them.

`docs/hooks/costs.py` makes the tables of the page from the results.
"""

from __future__ import annotations

import inspect
import json
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .measuring import OURS, Measured
from .peers import PEERS, versions
from .pictures import pictures_of
from .rows import ROWS

ROOT = Path(__file__).parents[2]
PAGE = Path("docs", "explanation", "what-it-costs.md")
FOLDER = Path("docs", "assets", "costs")
PICTURED = "3.11"
"""The version of Python that is pictured."""


def write_page(results: Sequence[Measured], root: Path, python: str) -> list[Path]:
    """Write the results, and the pictures that the page shows, and return the paths.

    Args:
        results: the results of all rows.
        root: the clone.
        python: the version of Python, such as 3.11.
    """
    results_file = root / FOLDER / f"{python}.json"
    results_file.write_text(as_text(results), encoding="utf-8")
    written = [results_file]
    if python == PICTURED:
        pictures = pictures_of(results)
        for name in pictures_on((root / PAGE).read_text(encoding="utf-8")):
            written.append(root / FOLDER / f"{name}.svg")
            written[-1].write_text(pictures[name], encoding="utf-8")
    return written


def pictures_on(page: str) -> list[str]:
    """Return the names of the pictures that a page shows."""
    return re.findall(r"\(\.\./assets/costs/([\w-]+)\.svg\)", page)


def as_text(results: Sequence[Measured]) -> str:
    """Return JSON with one line for each result."""
    head = {
        "python": platform.python_version(),
        "libraries": versions(),
        "left out": {peer.name: peer.leaves_out for peer in PEERS},
    }
    parts = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    lines = ",\n".join(json.dumps(entry(it)) for it in results)
    return "{" + ",\n".join([*parts, f'"lines": [\n{lines}\n]']) + "}\n"


def entry(measured: Measured) -> dict[str, Any]:
    """Return a result as the page needs it; of a curve, which is pictured, only our points."""
    line = measured.line
    module = inspect.getmodule(ROWS[measured.row])
    about = (module.__doc__ or "") if module else ""
    return {
        "part": about.partition("\n")[0].rstrip("."),
        "row": measured.row,
        "work": line.work,
        "at": line.at,
        "base": line.base,
        "bound": line.bound,
        "unit": line.unit,
        "holds": measured.holds,
        "costs": {
            name: float(f"{cost:.4g}")
            for name, cost in measured.costs.items()
            if line.at is None or name == OURS
        },
    }
