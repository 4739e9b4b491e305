"""The table that is printed."""

from __future__ import annotations

from typing import Any

from .measuring import OURS, Measured
from .peers import PEERS

NOTES = {peer.name: peer.leaves_out for peer in PEERS}


def shown(measured: Measured) -> str:
    """Return a line of the table."""
    line = measured.line
    others = [name for name in line.contenders if name not in (OURS, line.base)]
    cells = [f"{name} {number(measured.ratio(name))}" for name in others]
    floor = "" if line.base is None else f" x {line.base} ({cost(measured, line.base)})"
    unit = f" {line.unit}" if line.base is None else ""
    work = line.work if line.at is None else f"{line.work}: {line.at:,}"
    text = f"{work:<50} {number(measured.ratio(OURS)):>7}{unit}{floor}"
    return f"{text:<92} {verdict(measured):<34} {'  '.join(cells)}".rstrip()


def number(value: float) -> str:
    """Return a number with three digits or more."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def cost(measured: Measured, name: str) -> str:
    """Return a cost with its unit."""
    return f"{number(measured.costs[name])} {measured.line.unit}"


def peers_ahead(measured: Measured) -> list[str]:
    """Return the peers that cost less than this package."""
    costs = measured.costs
    return [name for name in costs if name in NOTES and costs[name] < costs[OURS]]


def verdict(measured: Measured) -> str:
    """Return whether a bound holds, and which peers are ahead."""
    ahead = peers_ahead(measured) if measured.line.at is None else []
    parts = []
    if measured.line.bound is not None:
        parts.append(f"{'holds' if measured.holds else 'MISSES'} {measured.line.bound:g}")
    if ahead:
        parts.append(f"BEHIND {', '.join(ahead)}")
    return "; ".join(parts)


def is_reached(measured: Measured) -> bool:
    """Whether a line is as it must be."""
    return measured.holds and not (measured.line.leads and peers_ahead(measured))


def as_json(results: list[Measured]) -> list[dict[str, Any]]:
    """Return the results as values that JSON has."""
    return [
        {
            "row": it.row,
            "work": it.line.work,
            "at": it.line.at,
            "base": it.line.base,
            "bound": it.line.bound,
            "unit": it.line.unit,
            "collector": it.line.collects,
            "reached": is_reached(it),
            "peers ahead": peers_ahead(it),
            "costs": dict(it.costs),
            "ratios": {name: it.ratio(name) for name in it.costs},
        }
        for it in results
    ]


def notes(results: list[Measured]) -> list[str]:
    """Return what each peer in the table leaves out."""
    names = {name for measured in results for name in measured.line.contenders}
    return [f"{name:<18} {note}" for name, note in NOTES.items() if name in names]
