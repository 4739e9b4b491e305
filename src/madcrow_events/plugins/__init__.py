"""Plugins: handler groups that other distributions offer through entry points.

A distribution offers a `HandlerGroup` under the entry-point group
`madcrow_events.handlers`. Its metadata are checked before it is imported.
"""

from madcrow_events.plugins._checking import check_plugins
from madcrow_events.plugins._discovery import ENTRY_POINT_GROUP, Plugin, discover_plugins
from madcrow_events.plugins._loading import load_plugins, unload_plugin
from madcrow_events.plugins._reports import PluginReport, PluginReports, PluginStatus

__all__ = [
    "ENTRY_POINT_GROUP",
    "Plugin",
    "PluginReport",
    "PluginReports",
    "PluginStatus",
    "check_plugins",
    "discover_plugins",
    "load_plugins",
    "unload_plugin",
]
