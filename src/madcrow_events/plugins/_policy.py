"""Which plugins are wanted, by the allow and deny lists; `_discovery` compares the names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from madcrow_events._text import close_matches, printable, type_name
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.plugins._discovery import LOGGER, Plugin, is_called

__all__ = ["compared", "why_unwanted"]


class _NameList(NamedTuple):
    source: str  # where the list stands, for messages
    names: tuple[str, ...]
    by_entry_point: bool  # whether the name of an entry point alone is enough

    def has(self, plugin: Plugin) -> bool:
        return any(self._means(plugin, name) for name in self.names)

    def _means(self, plugin: Plugin, name: str) -> bool:
        return is_called(plugin, name, by_entry_point=self.by_entry_point)

    def unknown(self, plugins: list[Plugin]) -> list[str]:
        """Return the names that mean none of the plugins."""
        return [name for name in self.names if not any(self._means(it, name) for it in plugins)]


def why_unwanted(
    plugins: list[Plugin], allow: Iterable[str] | None, deny: Iterable[str] | None
) -> tuple[dict[Plugin, str], list[str]]:
    """Return the plugins that must not be loaded, each with the reason.

    Returns:
        The reasons, and a warning for each name on a list that means no plugin. The warnings are
        logged already.

    Raises:
        InvalidOptionError: a list is no list of names.
    """
    reasons, warnings = compared(plugins, allow, deny)
    for warning in warnings:
        LOGGER.warning("%s", warning)
    return reasons, warnings


def compared(
    plugins: list[Plugin], allow: Iterable[str] | None, deny: Iterable[str] | None
) -> tuple[dict[Plugin, str], list[str]]:
    """Return what `why_unwanted` returns, without logging it."""
    denied, allowed = _lists("deny", deny), _lists("allow", allow)
    unknown = [(it, name) for it in (*denied, *allowed) for name in it.unknown(plugins)]
    reasons = {}
    for plugin in plugins:
        denying = [names.source for names in denied if names.has(plugin)]
        missing = [names for names in allowed if not names.has(plugin)]
        if _is_switched_off():
            reasons[plugin] = "plugins are switched off by MADCROW_EVENTS_DISABLE_PLUGINS"
        elif denying:
            reasons[plugin] = f"it is on the deny list, {denying[0]}"
        elif missing:
            reasons[plugin] = f"it is not on the allow list, {missing[0].source}"
            if any(names is missing[0] and is_called(plugin, name) for names, name in unknown):
                reasons[plugin] += f", by its full name: write '{printable(plugin.name)}'"
    return reasons, [_why_unknown(names, name, plugins) for names, name in unknown]


def _is_switched_off() -> bool:
    value = os.environ.get("MADCROW_EVENTS_DISABLE_PLUGINS", "").strip().lower()
    return value not in ("", "0", "false", "no", "off")


def _lists(option: str, given: Iterable[str] | None) -> list[_NameList]:
    """Return the lists of one kind that are given: as the argument, and in the environment."""
    by_entry_point = (
        option == "deny"
    )  # to allow it alone would admit any distribution that uses the same name
    lists = []
    if given is not None:
        if isinstance(given, str) or not isinstance(given, Iterable):
            sole: object = given
            example = printable(sole) if isinstance(sole, str) else "acme-alerts:alerts"
            raise InvalidOptionError(
                f"{option} is a list of names: write {option}=['{example}']", option=option
            )
        names = tuple(given)
        for name in names:
            if not isinstance(name, str):
                raise InvalidOptionError(
                    f"{option} names plugins, such as 'acme-alerts:alerts', not "
                    f"{type_name(type(name))}",
                    option=option,
                )
        lists.append(_NameList(f"the argument {option}", names, by_entry_point))
    variable = f"MADCROW_EVENTS_PLUGINS_{option.upper()}"
    parts = (part.strip() for part in os.environ.get(variable, "").split(","))
    listed = tuple(part for part in parts if part)
    return [*lists, _NameList(variable, listed, by_entry_point)] if listed else lists


def _why_unknown(names: _NameList, name: str, plugins: list[Plugin]) -> str:
    """Return a warning about a name that means no plugin."""
    meant = [f"'{printable(plugin.name)}'" for plugin in plugins if is_called(plugin, name)]
    if meant:
        fault = f"an entry point without its distribution: write {' or '.join(meant)}"
    else:
        fault = "and no installed plugin has this name"
        near = close_matches(name, [plugin.name for plugin in plugins], 1, likeness=0.4)
        fault += f": did you mean {printable(near[0])}?" if near else ""
    return f"{names.source} names {printable(name)}, {fault}"
