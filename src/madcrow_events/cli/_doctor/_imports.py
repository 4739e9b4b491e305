"""How long the import of each module takes."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Self

from madcrow_events.cli._doctor._findings import Finding, finding
from madcrow_events.cli._doctor._modules import file_of, is_installed
from madcrow_events.cli._places import Line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType, TracebackType

__all__ = ["SLOW", "ImportTimes", "slow_imports"]

SLOW: Final = 0.5
"""From how many seconds on an import is slow."""

_EXECUTE: Final = "exec_module"

_IDLE: Final = 0.1
"""What works for a smaller part of its time than this has waited for something on purpose."""


class ImportTimes:
    """Takes the time that each import in a `with` block spends in the module itself.

    It stands before all other finders, asks them for the spec as the import system would, and takes
    the time of `exec_module` of the loader that they give. When the block ends, it leaves no trace.

    Attributes:
        seconds: for each module, how long its code ran, without what it imports.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._timed: dict[int, Any] = {}  # the loaders whose time is taken, by identity
        self._threads = threading.local()

    def __enter__(self) -> Self:
        """Begin."""
        sys.meta_path.insert(0, self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End, and give the loaders back their own methods."""
        sys.meta_path[:] = [it for it in sys.meta_path if it is not self]
        for loader in self._timed.values():
            vars(loader).pop(_EXECUTE, None)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what the other finders find, with a loader whose time is taken."""
        finders = (getattr(it, "find_spec", None) for it in sys.meta_path if it is not self)
        specs = (find(name, path, target) for find in finders if find is not None)
        spec = next((it for it in specs if it is not None), None)
        if spec is not None:
            self._take_time_of(spec.loader)
        return spec

    def _take_time_of(self, loader: Any) -> None:
        """Let a loader tell how long it takes, if it is an object that can be told so."""
        own = getattr(loader, "__dict__", None)
        if isinstance(loader, type) or not isinstance(own, dict) or _EXECUTE in own:
            return
        execute = getattr(loader, _EXECUTE, None)
        if execute is None:
            return

        def timed(module: ModuleType) -> None:
            self._execute(execute, module)

        own[_EXECUTE] = timed
        self._timed[id(loader)] = loader

    def _execute(self, execute: Callable[[ModuleType], None], module: ModuleType) -> None:
        stack: list[tuple[float, float]] = self._threads.__dict__.setdefault("stack", [])
        stack.append((0.0, 0.0))
        began, at_work = time.perf_counter(), time.thread_time()
        try:
            execute(module)
        finally:
            took, worked = time.perf_counter() - began, time.thread_time() - at_work
            inner, inner_work = stack.pop()
            self.seconds[module.__name__] = _fair(took - inner, worked - inner_work)
            if stack:
                outer, outer_work = stack[-1]
                stack[-1] = outer + took, outer_work + worked


def _fair(took: float, worked: float) -> float:
    """Return how many of the seconds that an import took are its own.

    If it has worked for a part of them, it may have waited for a processor: then the seconds count
    that it has worked. If it has hardly worked at all, it has slept, or waited for a lock or a
    network: then all count.
    """
    return took if worked < took * _IDLE else worked


def slow_imports(seconds: dict[str, float], own: set[str]) -> Iterator[Finding]:
    """Yield a finding for each module whose own code takes long, unless it was installed.

    How long installed modules take is not the application's fault; it may be installed itself.

    Args:
        seconds: how long the code of each module ran.
        own: the names of the application's own modules.
    """
    for name, took in seconds.items():
        file = file_of(name)
        is_ours = name in own or (file is not None and not is_installed(file))
        if is_ours and took >= SLOW:
            yield finding(
                "slow_import",
                name,
                f"importing {name} takes {took:.1f} s, without what it imports",
                "move what is slow into functions that are called later",
                None if file is None else Line(file, 1),
            )
