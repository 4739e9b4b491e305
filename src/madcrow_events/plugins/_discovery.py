"""What the metadata and the source of plugins tell, without importing any of them (P1, P2)."""

from __future__ import annotations

import ast
import logging
import os
import re
import warnings
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from madcrow_events._logs import printable, type_name
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.handlers import API_VERSION

if TYPE_CHECKING:
    from importlib.metadata import Distribution

__all__ = [
    "ENTRY_POINT_GROUP",
    "Plugin",
    "discover_plugins",
    "is_called",
    "why_unfit",
    "why_unwanted",
]

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
        except Exception as error:  # noqa: BLE001  # they are that distribution's problem
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
            name=f"{name}:{entry_point.name}",
            entry_point=entry_point.name,
            distribution=name,
            version=metadata["Version"] if "Version" in metadata else "",  # noqa: SIM401  # has no get
            target=entry_point.value,
            requires=tuple(distribution.requires or ()),
        )
        for entry_point in distribution.entry_points
        if entry_point.group == ENTRY_POINT_GROUP
    ]


def _normal(name: str) -> str:
    """Return the one spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


# Which of them are wanted


def is_called(plugin: Plugin, name: str) -> bool:
    """Tell whether this is a name of a plugin: `distribution:entry_point`, or either of them."""
    if name in (plugin.name, plugin.entry_point):
        return True
    distribution, _, entry_point = name.partition(":")
    return _normal(distribution) == plugin.distribution and entry_point.strip() in (
        plugin.entry_point,
        *([""] if ":" not in name else []),
    )


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


# Which of them fit


def why_unfit(plugin: Plugin, plugins: list[Plugin]) -> str:
    """Return why a plugin cannot be loaded here, or an empty string."""
    rivals = [it.name for it in plugins if it.entry_point == plugin.entry_point]
    if len(rivals) > 1:
        return (
            f"{' and '.join(printable(name) for name in rivals)} offer one name: "
            "uninstall all but one of them"
        )
    absent = _absent_requirements(plugin)
    if absent:
        needed = " ".join(f"'{requirement}'" for requirement in absent)
        return f"it requires what is not installed: pip install {needed}"
    version = _declared_api_version(plugin)
    if version > API_VERSION:
        return (
            f"it asks for api_version {version}, and this madcrow-events has {API_VERSION}: "
            "upgrade madcrow-events, or install an older version of the plugin"
        )
    return ""


_REQUIRED_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")


def _absent_requirements(plugin: Plugin) -> list[str]:
    """Return what the plugin's distribution requires on every machine, and is not installed.

    A requirement with a marker (`; python_version < "3.12"`, `; extra == "dev"`) is left to the
    import, which fails if it matters.
    """
    from importlib.metadata import PackageNotFoundError, distribution  # noqa: PLC0415  # as above

    absent = []
    for requirement in plugin.requires:
        found = _REQUIRED_NAME.match(requirement)
        if ";" in requirement or found is None:
            continue
        try:
            distribution(found[1])
        except PackageNotFoundError:
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
    except Exception:  # noqa: BLE001  # whatever is wrong with it, the import will tell
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
    from importlib.machinery import PathFinder  # noqa: PLC0415  # as above
    from importlib.util import find_spec  # noqa: PLC0415  # as above

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
