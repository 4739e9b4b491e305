"""Ways in which a module runs again, for tests that are told in each."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

__all__ = ["RUNS", "Run"]


class Run:
    """Runs the source of one module, again and again.

    Args:
        folder: where it is written.
        patch: undoes what it does to the interpreter.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.patch = patch
        patch.setattr(sys, "dont_write_bytecode", True)
        patch.syspath_prepend(folder)
        self.start()

    def start(self) -> None:
        """Prepare what all runs share."""

    def __call__(self, source: str) -> dict[str, Any]:
        """Run a source, and return what its globals are then."""
        raise NotImplementedError


class Reload(Run):
    """`importlib.reload`."""

    def start(self) -> None:
        self.patch.delitem(sys.modules, "shop_again", raising=False)

    def __call__(self, source: str) -> dict[str, Any]:
        (self.folder / "shop_again.py").write_text(source)
        importlib.invalidate_caches()
        loaded = sys.modules.get("shop_again")
        module = importlib.import_module("shop_again") if loaded is None else self.again(loaded)
        return dict(vars(module))

    def again(self, module: ModuleType) -> ModuleType:
        """Run it again."""
        return importlib.reload(module)


class Fresh(Reload):
    """An import under the same name, once `sys.modules` has forgotten it."""

    def again(self, module: ModuleType) -> ModuleType:
        del sys.modules[module.__name__]
        return importlib.import_module(module.__name__)


class Script(Run):
    """A script that runs in a new `__main__` each time, as Streamlit does it."""

    def start(self) -> None:
        self.patch.setitem(sys.modules, "__main__", sys.modules["__main__"])

    def __call__(self, source: str) -> dict[str, Any]:
        sys.modules["__main__"] = module = ModuleType("__main__")
        module.__file__ = str(self.folder / "app.py")
        code = compile(source, module.__file__, "exec", dont_inherit=True)
        exec(code, vars(module))  # noqa: S102  # as Streamlit does
        return dict(vars(module))


class Cell(Run):
    """A cell of a notebook, or what is typed at a prompt."""

    known: ClassVar[dict[str, Any]] = {"__name__": "__main__"}

    def start(self) -> None:
        self.namespace = dict(self.known)

    def __call__(self, source: str) -> dict[str, Any]:
        code = compile(source, "<cell>", "exec", dont_inherit=True)
        exec(code, self.namespace)  # noqa: S102  # as a prompt does
        return dict(self.namespace)


class Again(Cell):
    """A script that Spyder, or IPython's `%run`, runs in the `__main__` of before."""

    known: ClassVar[dict[str, Any]] = {"__name__": "__main__", "__file__": "app.py"}


class Console(Cell):
    """A line in a console of `code`, whose globals an application chooses."""

    known: ClassVar[dict[str, Any]] = {"application": None}


class Counted(Again):
    """A cell in IPython, which runs it statement by statement; an editor may name a file."""

    execution_count = 1

    def start(self) -> None:
        super().start()
        self.user_ns = self.namespace
        self.namespace["get_ipython"] = lambda: self

    def __call__(self, source: str) -> dict[str, Any]:
        try:
            for statement in ast.parse(source).body:
                code = compile(ast.Module([statement], []), "cell", "exec", dont_inherit=True)
                exec(code, self.namespace)  # noqa: S102  # as IPython does
        finally:
            self.execution_count += 1
        return dict(self.namespace)


RUNS: tuple[Callable[[Path, pytest.MonkeyPatch], Run], ...] = (
    Reload,
    Fresh,
    Script,
    Cell,
    Again,
    Console,
    Counted,
)
