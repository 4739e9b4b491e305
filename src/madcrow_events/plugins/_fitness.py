"""Which plugins fit: what their metadata and source ask for, without importing them."""

from __future__ import annotations

import ast
import re
import warnings
from typing import TYPE_CHECKING, Any

from madcrow_events._interrupts import is_interrupt
from madcrow_events._text import printable
from madcrow_events.handlers._declaring import API_VERSION
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
    version = _declared_api_version(plugin)
    if version > API_VERSION:
        return (
            f"it asks for api_version {version}, and this madcrow-events has {API_VERSION}: "
            "upgrade madcrow-events, or install an older version of the plugin"
        )
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


def _declared_api_version(plugin: Plugin) -> int:
    """Return what the source of a plugin's module asks for; 1 if that does not tell.

    Read without importing anything. A group that is made in another module than the entry
    point names is found out when it is imported.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of its syntax come with the import
            tree = ast.parse(_source_of(plugin._module))
    except Exception as error:  # whatever is wrong with it, the import will tell
        if is_interrupt(error):
            raise
        return 1
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        if plugin._attribute in names and isinstance(value, ast.Call):
            for keyword in value.keywords:
                version = getattr(keyword.value, "value", None)
                if keyword.arg == "api_version" and isinstance(version, int):
                    return version
    return 1


def _source_of(module: str) -> str:
    from importlib.machinery import PathFinder  # loaded when first needed
    from importlib.util import find_spec  # likewise

    name, *rest = module.split(".")
    spec = find_spec(name)  # imports nothing, for it has no parent
    for part in rest:
        if spec is None:
            break
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, spec.submodule_search_locations)
    loader: Any = None if spec is None else spec.loader
    source: str = loader.get_source(name)
    return source
