"""What plugins cost: `load_plugins` among many distributions, and the pytest plugin in a test run.

Run it as `python tests/benchmarks/cost_of_plugins.py`, in an environment in which the package is
installed. Each run is a process of its own, and the commands take turns.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

DISTRIBUTIONS = 300
OURS = 3
TURNS = 15

PLUGIN = """
from madcrow_events import HandlerGroup, LoginEventContext, user_logged_in

group = HandlerGroup("benchmark")


@group.on(user_logged_in)
def note(login: LoginEventContext) -> None:
    pass
"""

SCAN = """
import sys, time
sys.path.insert(0, sys.argv[1])
from importlib.metadata import entry_points
began = time.perf_counter()
assert len(entry_points(group="madcrow_events.handlers")) >= int(sys.argv[2])
print((time.perf_counter() - began) * 1000)
"""

LOAD = """
import sys, time
sys.path.insert(0, sys.argv[1])
import importlib.metadata
from madcrow_events import load_plugins
began = time.perf_counter()
assert sum(report.ok for report in load_plugins()) >= int(sys.argv[2])
print((time.perf_counter() - began) * 1000)
"""

PYTEST = """
import importlib, time
from _pytest.config import get_config
manager = get_config().pluginmanager
began = time.perf_counter()
manager.register(importlib.import_module("pytest_madcrow_events"), "madcrow_events")
print((time.perf_counter() - began) * 1000)
"""


def write_distributions(folder: Path) -> None:
    """Write distributions that are installed as far as their metadata tell."""
    for number in range(DISTRIBUTIONS):
        name = f"distribution_{number}"
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        if number < OURS:
            (folder / f"{name}.py").write_text(PLUGIN)
            entry_points = f"[madcrow_events.handlers]\n{name} = {name}:group\n"
        else:
            entry_points = f"[console_scripts]\n{name} = {name}:main\n"
        (info / "entry_points.txt").write_text(entry_points)


def milliseconds(script: str, *arguments: str) -> float:
    """Run a script in a new process, and return the number that it prints."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    """Print both costs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_distributions(folder)
        commands = {
            "entry_points() of the standard library": (SCAN, name, str(OURS)),
            "load_plugins()": (LOAD, name, str(OURS)),
            "importing and registering the pytest plugin": (PYTEST,),
        }
        times: dict[str, list[float]] = {row: [] for row in commands}
        for _ in range(TURNS):
            for row, command in commands.items():
                times[row].append(milliseconds(*command))
    print(f"{DISTRIBUTIONS} distributions, {OURS} of them plugins; {TURNS} processes each, in turn")
    print(f"{'':<46}{'least':>9}{'median':>9}   milliseconds")
    for row, found in times.items():
        print(f"{row:<46}{min(found):9.1f}{statistics.median(found):9.1f}")


if __name__ == "__main__":
    main()
