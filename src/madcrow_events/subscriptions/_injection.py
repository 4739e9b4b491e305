"""Parameters that somebody else fills in: those of dependency injection.

The packages are known by name, and none is imported: whoever uses one has done so.
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
"""The classes of what marks a parameter, by package."""


def is_injection_used() -> bool:
    """Whether the program has imported a package that injects."""
    return any(package in sys.modules for package in _MARKERS)


def injecting_package(marks: Iterable[Any]) -> tuple[str, Any] | None:
    """Return the package whose marker is among `marks`, and that marker; None if there is none."""
    for mark in marks:
        for base in type(mark).__mro__:
            package = module_of(base).partition(".")[0]
            if type_name(base) in _MARKERS.get(package, ()):
                return package, mark
    return None


def is_left_to_wrapper(handler: object, package: str, marker: object) -> bool:
    """Whether a handler is wrapped by what resolves this marker.

    That is the marker's own package, one that extends it, such as `fastapi_injectable`, or the
    package of a marker inside of it, as in `Depends(Provide[...])`.
    """
    resolving = {package}
    inner = injecting_package((getattr(marker, "dependency", None),))
    if inner is not None:
        resolving.add(inner[0])
    around = wrapping_packages(handler)
    return any(it == name or it.startswith(f"{name}_") for it in around for name in resolving)
