"""Checking whether plugins would load, each in a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Final

from madcrow_events._text import printable, type_name
from madcrow_events._waiters import check_seconds
from madcrow_events.plugins._discovery import Plugin, discover_plugins, search_path
from madcrow_events.plugins._loading import load, refused
from madcrow_events.plugins._policy import why_unwanted
from madcrow_events.plugins._reports import PluginReport, PluginReports
from madcrow_events.signals import madcrow_signals

__all__ = ["check_here", "check_plugins"]


_CHECK: Final = """\
import sys
open(sys.argv[2], "w").close()  # the sign that Python runs this
import json, os, pathlib
sys.path[:] = [it if isinstance(it, str) else pathlib.Path(*it) for it in json.load(sys.stdin)]
from madcrow_events import madcrow_signals
from madcrow_events.plugins._checking import check_here
madcrow_signals.strict = False
check_here(*sys.argv[1:])
os._exit(0)  # without waiting for threads that the plugin started
"""

_OPTIONS: Final = {
    "isolated": "-I",
    "ignore_environment": "-E",
    "no_user_site": "-s",
    "no_site": "-S",
    "optimize": "-O",
    "bytes_warning": "-b",
}
"""The options of Python that decide what an import does, by their names in `sys.flags`."""


def check_plugins(
    *,
    allow: Iterable[str] | None = None,
    deny: Iterable[str] | None = None,
    timeout: float = 10.0,
) -> PluginReports:
    """Report which plugins `load_plugins` would load, without loading them here.

    Each plugin is loaded in a process of its own, one after the other. So a plugin that hangs, or
    that ends its process, is reported like any other. The new process runs Python with the same
    options as this one.

    That process does not know the events of the application. So every name to which a plugin
    subscribes counts as declared, without a model. Where no such process can be started, as in a
    program that is frozen into one file, every plugin is refused with that reason.

    Args:
        allow: as for `load_plugins`.
        deny: as for `load_plugins`.
        timeout: how many seconds one plugin may take.

    Returns:
        A report for each installed plugin, also for those that were refused. Its `milliseconds`
            leave out the start of the process. Its `exception` is None.

    Raises:
        InvalidOptionError: a list is not a list of names, or the timeout is not a positive number.
    """
    check_seconds("timeout", timeout)
    plugins = discover_plugins()
    unwanted, warnings = why_unwanted(plugins, allow, deny)
    wanted = [plugin for plugin in plugins if plugin not in unwanted]
    why, reports = _why_not_apart(), []
    for plugin in plugins:
        report = refused(plugin, wanted, unwanted)
        if report is None and not why:
            report, why = _check(plugin, timeout)
        reports.append(report or _not_apart(plugin, why))
    return PluginReports(reports, warnings)


def _why_not_apart() -> str:
    """Return why no other Python process can be started, or an empty string."""
    if getattr(sys, "frozen", False):
        return "this program is frozen, and would start itself again"
    return "" if sys.executable else "sys.executable names no Python"


def _options() -> list[str]:
    """Return the options of this Python, and `-P`: the working directory is not searched."""
    options = ["-P", *(["-B"] if sys.dont_write_bytecode else [])]
    for name, option in _OPTIONS.items():
        options += [option] * getattr(sys.flags, name)
    options += [f"-W{it}" for it in sys.warnoptions]
    given = sys._xoptions.items()
    return options + [f"-X{it}" if value is True else f"-X{it}={value}" for it, value in given]


def _not_apart(plugin: Plugin, why: str) -> PluginReport:
    reason = (
        f"it cannot be checked in a process of its own, because {why}: see what load_plugins() says"
    )
    return PluginReport(plugin, "refused", reason)


def _check(plugin: Plugin, timeout: float) -> tuple[PluginReport | None, str]:
    """Return the report of a plugin; or None, and why no other Python process can be started."""
    import json  # only checks need it
    import subprocess  # only checks need it
    import tempfile  # only checks need it

    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
        # Not read from standard output, because the plugin may print.
        answer = os.path.join(folder, "report.json")  # noqa: PTH118  # pathlib would be imported
        path = [it if isinstance(it, str) else [os.fsdecode(it)] for it in search_path()]
        command = [sys.executable, *_options(), "-c", _CHECK, plugin.name, answer]
        try:
            done = subprocess.run(  # noqa: S603  # this very Python
                command,
                check=False,
                timeout=timeout,
                input=json.dumps(path).encode(),  # it may be too long for an argument
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        except subprocess.TimeoutExpired:
            if not os.path.exists(answer):  # noqa: PTH110  # pathlib would be imported
                return None, f"sys.executable runs no Python (it began none within {timeout} s)"
            reason = f"it was not loaded within {timeout} s: it may hang; look at its import"
            return PluginReport(plugin, "failed", reason, timeout * 1000), ""
        except OSError as error:
            return None, f"sys.executable cannot be started ({type_name(type(error))})"
        if not os.path.exists(answer):  # noqa: PTH110  # pathlib would be imported
            return None, f"sys.executable runs no Python (it ended with status {done.returncode})"
        try:
            with open(answer, encoding="utf-8") as file:  # noqa: PTH123  # pathlib would be imported
                told = json.load(file)
        except (OSError, ValueError):
            errors.seek(0)
            *_, last = errors.read().decode(errors="replace").strip().splitlines() or [""]
            reason = f"its process ended with status {done.returncode} before it was loaded"
            reason += f": {printable(last)}" if last else ""
            return PluginReport(plugin, "failed", reason), ""
    status, reason, took, signals, handlers = told
    return PluginReport(plugin, status, reason, took, tuple(signals), tuple(handlers)), ""


def check_here(name: str, answer: str) -> None:
    """Load one plugin and write its report to a file; `_check` runs this in a new process."""
    import json  # only checks need it

    (plugin,) = (it for it in discover_plugins() if it.name == name)
    report = load(plugin, madcrow_signals)
    told = (report.status, report.reason, report.milliseconds, report.signals, report.handlers)
    with open(answer, "w", encoding="utf-8") as file:  # noqa: PTH123  # pathlib would be imported
        json.dump(told, file)
