"""Plugins: handler groups that other distributions offer through entry points."""

from madcrow_events.plugins._discovery import (
    ENTRY_POINT_GROUP,
    Plugin,
    discover_plugins,
)
from madcrow_events.plugins._plugins import (
    PluginReport,
    PluginStatus,
    check_plugins,
    load_plugins,
    unload_plugin,
)

__all__ = [
    "ENTRY_POINT_GROUP",
    "Plugin",
    "PluginReport",
    "PluginStatus",
    "check_plugins",
    "discover_plugins",
    "load_plugins",
    "unload_plugin",
]
