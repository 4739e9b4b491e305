"""The installed plugins, and whether they would load."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from madcrow_events.cli._messages import waiting_for
from madcrow_events.plugins import check_plugins, discover_plugins

if TYPE_CHECKING:
    from madcrow_events.plugins import PluginStatus

__all__ = ["CheckedPlugin", "CheckedPlugins", "PluginRecord", "checked_plugins", "plugin_records"]


class PluginRecord(TypedDict):
    """An installed plugin, as `plugins --json` lists it."""

    name: str
    """Its distribution and its entry point, such as `acme-alerts:alerts`."""
    version: str
    """The version of the distribution."""
    target: str
    """The module and the object in it."""


class CheckedPlugin(TypedDict):
    """What `load_plugins` would make of a plugin."""

    name: str
    """Its distribution and its entry point."""
    version: str
    """The version of the distribution."""
    status: PluginStatus
    """`loaded`, `refused` or `failed`."""
    reason: str
    """Why it would not load; empty if it would."""
    milliseconds: float
    """How long its import and its registration take."""
    events: list[str]
    """The events that it declares."""
    handlers: list[str]
    """The events and patterns that its handlers are subscribed to."""


class CheckedPlugins(TypedDict):
    """What `plugins check --json` shows."""

    plugins: list[CheckedPlugin]
    """The installed plugins, sorted by name."""
    warnings: list[str]
    """A message for each entry of an allow or deny list that means no plugin."""


def plugin_records() -> list[PluginRecord]:
    """Return the installed plugins, without importing them."""
    return [
        {"name": it.name, "version": it.version, "target": it.target} for it in discover_plugins()
    ]


def checked_plugins() -> CheckedPlugins:
    """Return what would come of loading each plugin, which is tried in a process of its own."""
    with waiting_for("checking plugins"):
        reports = check_plugins()
    return {
        "plugins": [
            {
                "name": it.name,
                "version": it.version,
                "status": it.status,
                "reason": it.reason,
                "milliseconds": round(it.milliseconds, 1),
                "events": [*it.signals],
                "handlers": [*it.handlers],
            }
            for it in reports
        ],
        "warnings": [*reports.warnings],
    }
