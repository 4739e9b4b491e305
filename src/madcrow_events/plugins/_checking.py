"""Loading each plugin in a process of its own, to see whether it would."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from madcrow_events._text import printable, type_name
from madcrow_events._waiters import check_seconds
from madcrow_events.plugins._discovery import Plugin, discover_plugins, search_path
from madcrow_events.plugins._loading import load, refused
from madcrow_events.plugins._policy import why_unwanted
from madcrow_events.plugins._reports import PluginReport, PluginReports
from madcrow_events.signals import madcrow_signals

if TYPE_CHECKING:
    from collections.abc import Iterable


__all__ = ["check_here", "check_plugins"]


_CHECK: Final = """\
import json, os, pathlib, sys
sys.path[:] = [it if isinstance(it, str) else pathlib.Path(*it) for it in json.loads(sys.argv[1])]
from madcrow_events import madcrow_signals
from madcrow_events.plugins._checking import check_here
madcrow_signals.strict = False
check_here(*sys.argv[2:])
os._exit(0)  # without waiting for a thread that the plugin began
"""


def check_plugins(
    *,
    allow: Iterable[str] | None = None,
    deny: Iterable[str] | None = None,
    timeout: float = 10.0,
) -> PluginReports:
    """Load every plugin that is wanted in a process of its own, one after the other.

    Nothing is loaded into this process; so one that hangs, or ends its process, is named, too.
    That process knows no event of the application: each name that a plugin listens to counts as
    declared there, without a model. Where no such process can be started, as in a program that is
    frozen into one file, every plugin is refused with that reason.

    Args:
        allow: see `load_plugins`.
        deny: likewise.
        timeout: how long a plugin may take, in seconds.

    Returns:
        A report for each plugin that is installed, by name. `milliseconds` are those of the
        load, without the start of the process; reports have no `exception`. The `warnings` are
        those of `load_plugins`.

    Raises:
        InvalidOptionError: a list is no list of names, or the timeout no positive number.
    """
    check_seconds("timeout", timeout)
    plugins = discover_plugins()
    unwanted, warnings = why_unwanted(plugins, allow, deny)
    wanted = [plugin for plugin in plugins if plugin not in unwanted]
    return PluginReports(
        (refused(plugin, wanted, unwanted) or _check(plugin, timeout) for plugin in plugins),
        warnings,
    )


def _why_not_apart() -> str:
    """Return why no other Python can be started, or an empty string."""
    if getattr(sys, "frozen", False):
        return "this program is frozen, and would start itself again"
    return "" if sys.executable else "sys.executable names no Python"


def _not_apart(plugin: Plugin, why: str) -> PluginReport:
    reason = (
        f"it cannot be checked in a process of its own, for {why}: see what load_plugins() says"
    )
    return PluginReport(plugin, "refused", reason)


def _check(plugin: Plugin, timeout: float) -> PluginReport:
    import json  # noqa: PLC0415  # only checks need it
    import subprocess  # noqa: PLC0415  # likewise
    import tempfile  # noqa: PLC0415  # likewise

    if why := _why_not_apart():
        return _not_apart(plugin, why)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
        # Not its output, to which the plugin may print.
        answer = os.path.join(folder, "report.json")  # noqa: PTH118  # pathlib would be imported for it
        path = [it if isinstance(it, str) else [os.fsdecode(it)] for it in search_path()]
        command = [sys.executable, "-c", _CHECK, json.dumps(path), plugin.name, answer]
        try:
            done = subprocess.run(  # noqa: S603  # this very Python
                command,
                check=False,
                timeout=timeout,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        except subprocess.TimeoutExpired:
            return PluginReport(
                plugin,
                "failed",
                f"it was not loaded within {timeout} s: it may hang; see what it does at import",
                timeout * 1000,
            )
        except OSError as error:
            return _not_apart(
                plugin, f"sys.executable cannot be started ({type_name(type(error))})"
            )
        try:
            with open(answer, encoding="utf-8") as file:  # noqa: PTH123  # as above
                told = json.load(file)
        except (OSError, ValueError):
            errors.seek(0)
            *_, last = errors.read().decode(errors="replace").strip().splitlines() or [""]
            reason = f"its process ended with status {done.returncode} before it was loaded"
            reason += f": {printable(last)}" if last else ""
            return PluginReport(plugin, "failed", reason)
    status, reason, took, signals, handlers = told
    return PluginReport(plugin, status, reason, took, tuple(signals), tuple(handlers))


def check_here(name: str, answer: str) -> None:
    """Load one plugin, and write what came of it to a file; run by `_check`."""
    import json  # noqa: PLC0415  # as in `_check`

    (plugin,) = (it for it in discover_plugins() if it.name == name)
    report = load(plugin, madcrow_signals)
    told = (report.status, report.reason, report.milliseconds, report.signals, report.handlers)
    with open(answer, "w", encoding="utf-8") as file:  # noqa: PTH123  # as above
        json.dump(told, file)
