"""Plugins that would not load, and calls that load any plugin."""

from __future__ import annotations

import ast
import os
from typing import TYPE_CHECKING, Final

from madcrow_events.cli._doctor._findings import Finding, finding
from madcrow_events.cli._messages import waiting_for
from madcrow_events.plugins import check_plugins, discover_plugins, load_plugins
from madcrow_events.plugins._policy import compared

if TYPE_CHECKING:
    from collections.abc import Iterator

    from madcrow_events.cli._doctor._code import Call
    from madcrow_events.cli._doctor._sources import Sources
    from madcrow_events.plugins import PluginReports

__all__ = ["checked", "unlisted", "unloaded"]

_ALLOW: Final = "MADCROW_EVENTS_PLUGINS_ALLOW"


def checked(loaded: PluginReports | None, sources: Sources) -> PluginReports | None:
    """Return the reports on the installed plugins; None if the application loads none.

    Args:
        loaded: the reports on those that were loaded into the application, or None to try to load
            each in a process of its own.
        sources: the sources of the application.
    """
    if loaded is not None or not _loading(sources):
        return loaded
    with waiting_for("checking plugins"):
        return check_plugins()


def unloaded(reports: PluginReports, sources: Sources) -> Iterator[Finding]:
    """Yield a finding for each plugin that would not load, and each entry of a list without one.

    A plugin that a list keeps out is none: somebody wants it so.

    Args:
        reports: the reports.
        sources: the sources of the application, which may have an allow list.
    """
    unwanted, _ = compared(discover_plugins(), _allowed(sources), None)
    for it in reports:
        if it.plugin in unwanted:
            continue
        if it.status == "failed":
            message = f"loading {it.name} {it.version} fails: {it.reason}"
            fix = "mend or update the plugin, uninstall it, or leave it off the allow list"
            yield finding("failed_plugin", it.name, message, fix, None)
        elif it.status == "refused":
            message = f"{it.name} {it.version} is refused: {it.reason}"
            fix = "mend or update the plugin, or uninstall it"
            yield finding("refused_plugin", it.name, message, fix, None)
    for warning in reports.warnings:
        fix = "correct the entry, remove it, or install the plugin"
        yield finding("unknown_plugin", warning.partition(",")[0], warning, fix, None)


def unlisted(sources: Sources) -> Iterator[Finding]:
    """Yield a finding for each call of `load_plugins` that loads whatever is installed.

    Args:
        sources: the sources of the application.
    """
    if any(it.strip() for it in os.environ.get(_ALLOW, "").split(",")):
        return
    for call in _loading(sources):
        allow = call.keyword("allow")
        if allow is None and not call.may_have_keyword("allow"):
            is_unlisted = True
        else:
            is_unlisted = allow is not None and call.value_of(allow) is None
        if is_unlisted:
            yield finding(
                "unlisted_plugins",
                "load_plugins",
                "load_plugins is called without an allow list, and loads every plugin that any "
                "installed package offers",
                'name the plugins that you want, as in load_plugins(allow=["acme-alerts"])',
                call.line,
            )


def _loading(sources: Sources) -> list[Call]:
    """Return the calls of `load_plugins`, and those that hand it on, as to a thread."""
    own = (it for it in sources.calls if it.source.is_own)
    return [it for it in own if it.is_of(load_plugins)]


def _allowed(sources: Sources) -> list[str] | None:
    """Return the plugins that the application allows, if each of its calls says so in full."""
    lists = [it.keyword("allow") for it in _loading(sources)]
    given = [it for it in lists if it is not None]
    try:
        found = [*map(ast.literal_eval, given)]
    except ValueError:
        return None
    is_listed = all(isinstance(it, list | tuple | set) for it in found)
    if not found or len(found) < len(lists) or not is_listed:
        return None
    return [str(name) for names in found for name in names]
