"""Finding plugins in the metadata of installed distributions, without importing them."""

from __future__ import annotations

import logging
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from madcrow_events._interrupts import is_interrupt
from madcrow_events._text import printable, type_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from importlib.metadata import Distribution

__all__ = [
    "ENTRY_POINT_GROUP",
    "LOGGER",
    "Plugin",
    "discover_plugins",
    "is_called",
    "is_installed",
    "search_path",
]

ENTRY_POINT_GROUP: Final = "madcrow_events.handlers"
"""The group of entry points under which distributions offer plugins: `madcrow_events.handlers`."""

LOGGER = logging.getLogger("madcrow_events.plugins")


class Plugin(NamedTuple):
    """An installed plugin, as the metadata of its distribution describes it.

    Attributes:
        name: the distribution and the entry point, such as `acme-alerts:alerts`.
        entry_point: the name of the entry point, such as `alerts`.
        distribution: the name of the distribution, in small letters with hyphens.
        version: the version of the distribution.
        target: the module and the object in it, such as `acme_alerts.plugin:group`.
        requires: the requirements of the distribution, as its metadata lists them.
    """

    name: str
    entry_point: str
    distribution: str
    version: str
    target: str
    requires: tuple[str, ...] = ()

    @property
    def _key(self) -> str:
        return _normal(self.entry_point)

    @property
    def _module(self) -> str:
        return self.target.partition(":")[0].strip()

    @property
    def _attribute(self) -> str:
        # Extras may follow in brackets; whether they are installed does not matter here.
        return self.target.partition(":")[2].partition("[")[0].strip()


def discover_plugins() -> list[Plugin]:
    """Return the installed plugins, sorted by name. No plugin is imported.

    If a distribution stands on the path twice, the first one counts, as it does for imports. If its
    metadata cannot be read, the distribution is left out, and a warning in the log names it.
    """
    from importlib.metadata import distributions  # loaded when first needed

    found: dict[str, Plugin] = {}
    for distribution in distributions(path=search_path()):
        try:
            text = distribution.read_text("entry_points.txt") or ""
            if ENTRY_POINT_GROUP in text:
                for plugin in _plugins_of(distribution, text):
                    found.setdefault(plugin.name, plugin)
        except Exception as error:  # one broken distribution must not hide the others
            if is_interrupt(error):
                raise
            LOGGER.warning(
                "the metadata of %s cannot be read, and its plugins are left out: install it again "
                "(%s)",
                printable(getattr(distribution, "_path", distribution)),
                type_name(type(error)),
            )
    return sorted(found.values(), key=lambda plugin: plugin.name)


def search_path() -> list[Any]:
    """Return the entries of `sys.path` that can be searched; imports ignore the others, too."""
    entries: list[Any] = list(sys.path)
    return [entry for entry in entries if isinstance(entry, str | os.PathLike)]


def is_installed(name: str) -> bool:
    """Whether a distribution of this name is installed."""
    return any(True for _ in _of_name(name))


def _of_name(name: str) -> Iterable[Distribution]:
    from importlib.metadata import distributions

    return distributions(name=name, path=search_path())


def _plugins_of(distribution: Distribution, entry_points: str) -> list[Plugin]:
    metadata = distribution.metadata
    name = _normal(metadata["Name"])
    named = (it for it in _of_name(metadata["Name"]) if _normal(it.metadata["Name"]) == name)
    if next(named).read_text("entry_points.txt") != entry_points:
        return []  # another distribution of this name comes first on the path
    return [
        Plugin(
            name=f"{name}:{entry_point}",
            entry_point=entry_point,
            distribution=name,
            version=metadata["Version"] if "Version" in metadata else "",  # noqa: SIM401  # has no get
            target=target,
            requires=tuple(distribution.requires or ()),
        )
        for entry_point, target in _entries(entry_points)
    ]


def _entries(entry_points: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the target of each entry point in the group of plugins.

    The text is parsed here because, from Python 3.15 on, `Distribution.entry_points` refuses all
    entries if the target of one is malformed.
    """
    group = ""
    for line in map(str.strip, entry_points.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            group = line[1:-1]
        elif group == ENTRY_POINT_GROUP and line and not line.startswith("#"):
            name, target = line.split("=", 1)
            yield name.strip(), target.strip()


def _normal(name: str) -> str:
    """Return the normal form of a distribution's or an entry point's name (PEP 503)."""
    spelling = re.sub(r"[-_.]+", "-", name)
    # In lower case, some letters of other scripts become ASCII, such as the sign for kelvin.
    return spelling.lower() if spelling.isascii() else spelling


def is_called(plugin: Plugin, name: str, *, by_entry_point: bool = True) -> bool:
    """Whether an entry of an allow or deny list means this plugin.

    Args:
        plugin: the plugin.
        name: the entry: `distribution:entry-point`, a distribution, or an entry point.
        by_entry_point: whether the name of an entry point alone is enough.
    """
    distribution, colon, entry_point = (_normal(part.strip()) for part in name.partition(":"))
    if colon:
        return (distribution, entry_point) == (plugin.distribution, plugin._key)
    return distribution == plugin.distribution or (by_entry_point and distribution == plugin._key)
