"""Stand-ins for packages that inject parameters: markers and wrappers as those of the package."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import pytest


class Mailer:
    """What is injected."""


class Injecting:
    """A package that injects, for the length of a test.

    Args:
        monkeypatch: puts the package among the imported ones.
        module: where its wrappers are written, such as `fast_depends.use`.
        marker: the name of the class that marks a parameter.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: str, marker: str) -> None:
        self.package = module.partition(".")[0]
        self._module = module
        monkeypatch.setitem(sys.modules, self.package, ModuleType(self.package))
        base = type(marker, (), {"__module__": f"{self.package}.models"})
        self._marker = type("Extended", (base,), {"__module__": __name__})

    def depends(self, dependency: Any = Mailer) -> Any:
        """Return a marker."""
        marker = self._marker()
        marker.dependency = dependency
        return marker

    def inject(self, function: Callable[..., Any]) -> Any:
        """Decorate a function, so that its parameter `mailer` is injected."""

        def wrapper(*arguments: Any, **keywords: Any) -> Any:
            return function(*arguments, mailer=Mailer(), **keywords)

        # As if it were written in the module of the package.
        scope = {**globals(), "__name__": self._module}
        theirs = FunctionType(wrapper.__code__, scope, wrapper.__name__, None, wrapper.__closure__)
        if self.package != "dishka":
            return functools.wraps(function)(theirs)
        theirs.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        theirs.__dishka_injected__ = True  # type: ignore[attr-defined]
        return theirs
