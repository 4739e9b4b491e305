"""Print with which versions of pydantic several threads can make their first contexts at once.

Run it from a clone, on a machine that reaches a package index; it takes long, and installs each
version into a virtual environment of its own, in a folder that is kept for the next time::

    python tests/benchmarks/first_contexts.py ../first-contexts
    python tests/benchmarks/first_contexts.py ../first-contexts --versions 2.11.4 2.11.5

Each version has `--processes` fresh processes (20 unless given), in each of which 16 threads make
contexts of several models at the same moment. Without `--versions` these are the first and the last
release of each minor version from 2.8 on. The exit status is 1 if a version that the package allows
has failed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tomllib
import venv
from itertools import groupby
from pathlib import Path

CLONE = Path(__file__).resolve().parents[2]
OLDEST = (2, 8, 0)

IN_EACH_PROCESS = """
import sys, threading
sys.setswitchinterval(1e-6)
from madcrow_events import *

class Order(BaseEventContext):
    order_id: int
    items: list[dict[str, int]] = []

class Late(BaseEventContext):
    order: Order
    others: "list[Order]" = []

declared = SignalRegistry().signal("order", context=Late)
makers = [
    lambda: LoginEventContext(user_id=1, email="a"),
    lambda: LogoutEventContext(user_id=1, email="a"),
    lambda: RegistrationEventContext(user_id=1, email="a"),
    lambda: LoginFailedEventContext(email="a", failure_reason="b"),
    lambda: PasswordChangedEventContext(user_id=1),
    lambda: SystemStartupEventContext.model_validate({"version": "1"}),
    lambda: GenericEventContext(event_type="a", data={"b": 1}),
    lambda: Order(order_id=1),
    lambda: Late(order=Order(order_id=1)),
]
errors = []
barrier = threading.Barrier(16)

def work():
    barrier.wait()
    for make in makers:
        try:
            assert "timestamp" in vars(make())
        except BaseException as error:
            errors.append(f"{type(error).__name__}: {str(error)[:100]!r}")

threads = [threading.Thread(target=work) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("\\n".join(sorted(set(errors))))
"""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the virtual environments are kept")
    parser.add_argument("--versions", nargs="+", metavar="VERSION")
    parser.add_argument("--processes", type=int, default=20)
    options = parser.parse_args()
    excluded = _excluded()
    worst = 0
    for version in options.versions or _first_and_last_of_each_minor():
        python = _python_with(options.folder / version, version)
        failures = [_failures(python) for _ in range(options.processes)]
        failed = [failure for failure in failures if failure]
        is_allowed = version not in excluded
        worst |= bool(failed) and is_allowed
        print(
            f"{version:10} {'allowed ' if is_allowed else 'excluded'}",
            f"{len(failed):3} of {options.processes} processes failed",
            failed[0].splitlines()[0] if failed else "",
            flush=True,
        )
    return worst


def _excluded() -> set[str]:
    project = tomllib.loads((CLONE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (pydantic,) = [it for it in project["dependencies"] if it.startswith("pydantic")]
    return set(re.findall(r"!=([\d.]+)", pydantic))


def _first_and_last_of_each_minor() -> list[str]:
    command = [sys.executable, "-m", "pip", "index", "versions", "pydantic"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    listed = re.search(r"^Available versions: (.*)$", shown, re.MULTILINE)
    assert listed is not None, shown
    numbers = sorted(
        numbers
        for version in listed[1].split(", ")
        if re.fullmatch(r"\d+\.\d+\.\d+", version)
        and (numbers := tuple(map(int, version.split(".")))) >= OLDEST
    )
    chosen: list[str] = []
    for _, of_minor in groupby(numbers, key=lambda numbers: numbers[:2]):
        releases = list(of_minor)
        chosen += [".".join(map(str, it)) for it in dict.fromkeys((releases[0], releases[-1]))]
    return chosen


def _python_with(folder: Path, version: str) -> Path:
    python = folder / "bin" / "python"
    installed = folder / "installed"  # last, for a run may be broken off
    if not installed.exists():
        venv.create(folder, with_pip=False, symlinks=True)
        install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
        subprocess.run([*install, f"pydantic=={version}", "blinker>=1.8"], check=True)
        installed.touch()
    return python


def _failures(python: Path) -> str:
    done = subprocess.run(
        [python, "-c", IN_EACH_PROCESS],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(CLONE / "src")},
    )
    return (done.stdout + done.stderr[-500:]).strip()


if __name__ == "__main__":
    sys.exit(main())
