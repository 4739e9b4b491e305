"""Which plugins are wanted: what the lists allow and deny (P2)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches
from typing import NamedTuple

from madcrow_events._text import printable, type_name
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.plugins._discovery import LOGGER, Plugin, is_called

__all__ = ["why_unwanted"]


class _NameList(NamedTuple):
    source: str  # who says so
    names: tuple[str, ...]

    def has(self, plugin: Plugin) -> bool:
        return any(is_called(plugin, name) for name in self.names)


def why_unwanted(
    plugins: list[Plugin], allow: Iterable[str] | None, deny: Iterable[str] | None
) -> dict[Plugin, str]:
    """Return the plugins that are not to be loaded, each with the reason (P2).

    Warns of names on a list which no plugin has.

    Raises:
        InvalidOptionError: a list is no list of names.
    """
    denied, allowed = _lists("deny", deny), _lists("allow", allow)
    for names in (*denied, *allowed):
        _warn_of_unknown(names, plugins)
    reasons = {}
    for plugin in plugins:
        denying = [names.source for names in denied if names.has(plugin)]
        missing = [names.source for names in allowed if not names.has(plugin)]
        if _is_switched_off():
            reasons[plugin] = "plugins are switched off by MADCROW_EVENTS_DISABLE_PLUGINS"
        elif denying:
            reasons[plugin] = f"it is on the deny list, {denying[0]}"
        elif missing:
            reasons[plugin] = f"it is not on the allow list, {missing[0]}"
    return reasons


def _is_switched_off() -> bool:
    value = os.environ.get("MADCROW_EVENTS_DISABLE_PLUGINS", "").strip().lower()
    return value not in ("", "0", "false", "no", "off")


def _lists(option: str, given: Iterable[str] | None) -> list[_NameList]:
    """Return the lists of one kind: the argument, and the environment's, if there are any."""
    lists = []
    if given is not None:
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise InvalidOptionError(
                f"{option} is a list of names: write {option}=['acme-alerts:alerts']", option=option
            )
        names = tuple(given)
        for name in names:
            if not isinstance(name, str):
                raise InvalidOptionError(
                    f"{option} names plugins, such as 'acme-alerts:alerts', not "
                    f"{type_name(type(name))}",
                    option=option,
                )
        lists.append(_NameList(f"the argument {option}", tuple(name.strip() for name in names)))
    variable = f"MADCROW_EVENTS_PLUGINS_{option.upper()}"
    parts = (part.strip() for part in os.environ.get(variable, "").split(","))
    listed = tuple(part for part in parts if part)
    return [*lists, _NameList(variable, listed)] if listed else lists


def _warn_of_unknown(names: _NameList, plugins: list[Plugin]) -> None:
    for name in names.names:
        if not any(is_called(plugin, name) for plugin in plugins):
            near = get_close_matches(name, [plugin.name for plugin in plugins], 1, cutoff=0.4)
            LOGGER.warning(
                "%s names %s, and no installed plugin is called so%s",
                names.source,
                printable(name),
                f": did you mean {printable(near[0])}?" if near else "",
            )
