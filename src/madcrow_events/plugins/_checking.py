"""Loading each plugin in a process of its own, to see whether it would."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from madcrow_events._text import printable
from madcrow_events._waiters import check_seconds
from madcrow_events.plugins._discovery import Plugin, discover_plugins
from madcrow_events.plugins._loading import load, refused
from madcrow_events.plugins._policy import why_unwanted
from madcrow_events.plugins._reports import PluginReport
from madcrow_events.signals import madcrow_signals

if TYPE_CHECKING:
    from collections.abc import Iterable


__all__ = ["check_here", "check_plugins"]


_CHECK: Final = """\
import json, os, sys
sys.path[:] = json.loads(sys.argv[1])
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
) -> list[PluginReport]:
    """Load every plugin that is wanted in a process of its own, one after the other.

    Nothing is loaded into this process; so one that hangs, or ends its process, is named, too.
    That process knows no event of the application: each name that a plugin listens to counts as
    declared there, without a model.

    Args:
        allow: see `load_plugins`.
        deny: likewise.
        timeout: how long a plugin may take, in seconds.

    Returns:
        A report for each plugin that is installed, by name. `milliseconds` are those of the
        load, without the start of the process; reports have no `exception`.

    Raises:
        InvalidOptionError: a list is no list of names, or the timeout no positive number.
    """
    check_seconds("timeout", timeout)
    plugins = discover_plugins()
    unwanted = why_unwanted(plugins, allow, deny)
    return [refused(plugin, plugins, unwanted) or _check(plugin, timeout) for plugin in plugins]


def _check(plugin: Plugin, timeout: float) -> PluginReport:
    import json  # noqa: PLC0415  # only checks need it
    import subprocess  # noqa: PLC0415  # likewise
    import tempfile  # noqa: PLC0415  # likewise

    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
        # Not its output, to which the plugin may print.
        answer = os.path.join(folder, "report.json")  # noqa: PTH118  # pathlib would be imported for it
        command = [sys.executable, "-c", _CHECK, json.dumps(sys.path), plugin.name, answer]
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
