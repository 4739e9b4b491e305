"""What the metadata of installed distributions says of plugins; none is imported (P1)."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from madcrow_events._interrupts import is_interrupt
from madcrow_events._text import printable, type_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.metadata import Distribution

__all__ = ["ENTRY_POINT_GROUP", "LOGGER", "Plugin", "discover_plugins", "is_called"]

ENTRY_POINT_GROUP: Final = "madcrow_events.handlers"
"""The entry-point group of plugins."""

LOGGER = logging.getLogger("madcrow_events.plugins")


class Plugin(NamedTuple):
    """What the metadata of an installed distribution says of a plugin (P1).

    Attributes:
        name: the distribution and the entry point, such as `acme-alerts:alerts`.
        entry_point: the name of the entry point.
        distribution: the name of the distribution, in its normal form.
        version: the distribution's version.
        target: the module and the object in it, such as `acme_alerts.plugin:group`.
        requires: what the distribution requires, as its metadata has it.
    """

    name: str
    entry_point: str
    distribution: str
    version: str
    target: str
    requires: tuple[str, ...] = ()

    @property
    def _module(self) -> str:
        return self.target.partition(":")[0].strip()

    @property
    def _attribute(self) -> str:
        # What may follow in brackets are extras, which were installed, or not.
        return self.target.partition(":")[2].partition("[")[0].strip()


def discover_plugins() -> list[Plugin]:
    """Return the plugins of all installed distributions, by name; imports none of them.

    A distribution that is found twice on the path counts where it is found first, as it does
    for imports. One whose metadata cannot be read is left out, and named in a warning.
    """
    from importlib.metadata import distributions  # noqa: PLC0415  # loaded when first needed

    found: dict[str, Plugin] = {}
    for distribution in distributions():
        try:
            text = distribution.read_text("entry_points.txt") or ""
            if ENTRY_POINT_GROUP in text:
                for plugin in _plugins_of(distribution, text):
                    found.setdefault(plugin.name, plugin)
        except Exception as error:  # they are that distribution's problem
            if is_interrupt(error):
                raise
            LOGGER.warning(
                "the metadata of %s cannot be read, and its plugins are left out: install it again "
                "(%s)",
                printable(getattr(distribution, "_path", distribution)),
                type_name(type(error)),
            )
    return sorted(found.values(), key=lambda plugin: plugin.name)


def _plugins_of(distribution: Distribution, entry_points: str) -> list[Plugin]:
    from importlib.metadata import distribution as first_of_name  # noqa: PLC0415  # as above

    metadata = distribution.metadata
    if first_of_name(metadata["Name"]).read_text("entry_points.txt") != entry_points:
        return []  # another one comes first
    name = _normal(metadata["Name"])
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

    They are read here because `Distribution.entry_points` refuses all of them for one mistaken
    target, from Python 3.15 on.
    """
    group = ""
    for line in map(str.strip, entry_points.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            group = line[1:-1]
        elif group == ENTRY_POINT_GROUP and line and not line.startswith("#"):
            name, target = line.split("=", 1)
            yield name.strip(), target.strip()


def _normal(name: str) -> str:
    """Return the one spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def is_called(plugin: Plugin, name: str) -> bool:
    """Tell whether this is a name of a plugin: `distribution:entry_point`, or either of them."""
    if name in (plugin.name, plugin.entry_point):
        return True
    distribution, _, entry_point = name.partition(":")
    return _normal(distribution) == plugin.distribution and entry_point.strip() in (
        plugin.entry_point,
        *([""] if ":" not in name else []),
    )
