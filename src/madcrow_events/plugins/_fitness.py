"""Which plugins fit: what their metadata asks for, without importing them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from madcrow_events._text import printable
from madcrow_events.plugins._discovery import is_installed

if TYPE_CHECKING:
    from madcrow_events.plugins._discovery import Plugin

__all__ = ["why_unfit"]


_WELL_FORMED = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*:[A-Za-z0-9._-]+")


def why_unfit(plugin: Plugin, wanted: list[Plugin]) -> str:
    """Return why a plugin cannot be loaded here, or an empty string.

    Args:
        plugin: the plugin.
        wanted: all plugins that are to be loaded.
    """
    if not _WELL_FORMED.fullmatch(plugin.name):
        # Escaped, because a letter may look like one of another alphabet.
        return (
            f"{printable(ascii(plugin.name))} is not a valid plugin name: name the distribution "
            "and the entry point with letters from a to z, digits, '-', '_' and '.', and install "
            "it again"
        )
    rivals = [it for it in wanted if it._key == plugin._key and _WELL_FORMED.fullmatch(it.name)]
    if len(rivals) > 1:
        names = " and ".join(printable(it.name) for it in rivals)
        if sum(it.distribution == plugin.distribution for it in rivals) > 1:
            fix = f"give them different names, and install {printable(plugin.distribution)} again"
            return f"{names} offer the same name: {fix}"
        return (
            f"{names} offer the same name: allow one of them, as in allow=['{rivals[0].name}'], or "
            "uninstall all but one"
        )
    absent = _absent_requirements(plugin)
    if absent:
        needed = " ".join(f"'{requirement}'" for requirement in absent)
        return f"it requires packages that are not installed: pip install {needed}"
    return ""


_REQUIRED_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")


def _absent_requirements(plugin: Plugin) -> list[str]:
    """Return the requirements of the plugin's distribution that are not installed.

    A requirement with a marker (`; python_version < "3.12"`, `; extra == "dev"`) is not checked:
    if it is needed here, the import fails.
    """
    absent = []
    for requirement in plugin.requires:
        found = _REQUIRED_NAME.match(requirement)
        if ";" in requirement or found is None:
            continue
        if not is_installed(found[1]):
            absent.append(printable(requirement.strip()))
    return absent
