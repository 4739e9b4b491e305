"""Which modules an application consists of."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["contents_of", "file_of", "is_installed", "is_standard", "modules_of", "own_modules"]

_PACKAGE: Final = __name__.partition(".")[0]

_STANDARD_LIBRARY: Final = os.path.join(os.path.dirname(os.__file__), "")  # noqa: PTH118, PTH120  # texts are compared


def contents_of(module: object) -> dict[str, Any]:
    """Return the names of a module with what they mean; none for what is no module.

    A module that is to be imported when it is first used is not imported.

    Args:
        module: the module, or what stands in its place.
    """
    if not issubclass(type(module), ModuleType):
        return {}
    contents: dict[str, Any] = object.__getattribute__(module, "__dict__")
    return contents


def file_of(name: str) -> str | None:
    """Return the path of the file of a module that was imported; None if it has none."""
    file = contents_of(sys.modules.get(name)).get("__file__")
    return file if isinstance(file, str) else None


def modules_of(app: str, before: frozenset[str]) -> list[str]:
    """Return the names of the modules that an application consists of and has imported.

    Args:
        app: the name of its module.
        before: the names of the modules that were imported before it.
    """
    top = app.partition(".")[0]
    return sorted(
        name
        for name in [*sys.modules]
        if name.partition(".")[0] == top
        or (name not in before and name.partition(".")[0] != _PACKAGE)
    )


def own_modules(modules: Iterable[str], app: str, folder: str | None) -> set[str]:
    """Return the names of those modules that are the application's own.

    They are those of the package of `app`, and those that were imported from beside it.

    Args:
        modules: the names of the modules.
        app: the name of the application's module.
        folder: the folder given as `--app-dir`, or None.
    """
    top = app.partition(".")[0]
    folders = _folders_of(top, folder)
    return {it for it in modules if it.partition(".")[0] == top or _is_in(file_of(it), folders)}


def _folders_of(top: str, folder: str | None) -> list[Path]:
    """Return the folders whose modules are the application's own."""
    given = [] if folder is None else [Path(folder).resolve()]
    file = file_of(top)
    if file is None:
        return given
    beside = Path(file).resolve().parent
    return [*given, beside.parent if Path(file).name.startswith("__init__.") else beside]


def _is_in(file: str | None, folders: list[Path]) -> bool:
    if file is None or is_installed(file):
        return False
    return any(Path(file).resolve().is_relative_to(it) for it in folders)


def is_installed(file: str) -> bool:
    """Whether a file belongs to Python, or to what was installed."""
    return _is_in_site(file) or file.startswith(_STANDARD_LIBRARY)


def is_standard(file: str) -> bool:
    """Whether a file belongs to Python itself."""
    return file.startswith(("<frozen", _STANDARD_LIBRARY)) and not _is_in_site(file)


def _is_in_site(file: str) -> bool:
    return bool({"site-packages", "dist-packages"} & {*Path(file).parts})
