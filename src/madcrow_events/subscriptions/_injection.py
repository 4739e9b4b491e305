"""Parameters that a package for dependency injection fills in.

The packages are known by name and never imported here: a program that uses one has imported it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from madcrow_events._text import module_of, type_name
from madcrow_events.subscriptions._kinds import wrapping_packages

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["injecting_package", "is_injection_used", "is_left_to_wrapper"]

_MARKERS = {
    "fast_depends": {"Dependant", "Depends", "CustomField"},
    "dishka": {"_FromComponent", "FromDishka"},
    "dependency_injector": {"_Marker"},
    "fastapi": {"Depends"},
}
"""The classes of the markers of parameters, by package."""


def is_injection_used() -> bool:
    """Whether the program has imported a package for dependency injection."""
    return any(package in sys.modules for package in _MARKERS)


def injecting_package(marks: Iterable[Any]) -> tuple[str, Any] | None:
    """Return the package whose marker is among `marks`, and the marker; None without a marker."""
    for mark in marks:
        for base in type(mark).__mro__:
            package = module_of(base).partition(".")[0]
            if type_name(base) in _MARKERS.get(package, ()):
                return package, mark
    return None


def is_left_to_wrapper(handler: object, package: str, marker: object) -> bool:
    """Whether a handler is wrapped by a package that resolves this marker.

    Such a package is the marker's own, one that extends it, such as `fastapi_injectable`, or the
    package of a marker inside of it, as in `Depends(Provide[...])`.
    """
    resolving = {package}
    inner = injecting_package((getattr(marker, "dependency", None),))
    if inner is not None:
        resolving.add(inner[0])
    around = wrapping_packages(handler)
    return any(it == name or it.startswith(f"{name}_") for it in around for name in resolving)
