"""Run blinker's own tests on our classes: code written for blinker works unchanged (N5).

Downloads the source distribution of the installed version of blinker, and runs
its tests with `Signal` and `NamedSignal` mapped to `EventSignal`, `Namespace` to
a `SignalRegistry` that is not strict. All of them pass but those of `DIFFERENT`,
and those fail: should one of them pass, the list is out of date, and the script
fails, too.

    python tests/compat/run_blinker_suite.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree as ET

HERE = Path(__file__).resolve().parent

DIFFERENT = {
    "test_empty_bucket_growth": "reads _by_sender and _by_receiver, where blinker's bookkeeping "
    "grows until it is pruned by hand; ours does not grow",
    "test_filtered_receiver_weakref": "wants the receivers of a dead sender to be kept, and reads "
    "_by_receiver; we forget them, for they can never be called again",
    "test_weak_receiver": "reads _by_receiver and _by_sender, after all that it shows in public "
    "has passed",
}
"""The tests that cannot pass, by name, with the reason."""

AT_LEAST = 20
"""So many tests pass; fewer mean that the suite was not found where it used to be."""

SETTINGS = """\
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""


def download(blinker_version: str, folder: Path) -> Path:
    """Return a folder with blinker's tests."""
    source = ["--no-deps", "--no-binary", "blinker", f"blinker=={blinker_version}"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *source]
    subprocess.run([*command, "--dest", str(folder)], check=True)
    (archive,) = folder.glob("blinker-*.tar.gz")
    tests = folder / "tests"
    tests.mkdir()
    # Read, not extracted: an archive must not choose where its files land.
    with tarfile.open(archive) as opened:
        for member in opened:
            path = PurePosixPath(member.name)
            if member.isfile() and path.match("blinker-*/tests/*.py"):
                (tests / path.name).write_bytes(opened.extractfile(member).read())
    return tests


def run(tests: Path, folder: Path) -> dict[str, bool]:
    """Return each test's name and whether it passed.

    Raises:
        RuntimeError: pytest itself did not come to an end.
    """
    settings = folder / "pytest.ini"
    settings.write_text(SETTINGS, encoding="utf-8")
    report = folder / "report.xml"
    environment = {name: text for name, text in os.environ.items() if name != "PYTEST_ADDOPTS"}
    environment["PYTHONPATH"] = str(HERE)
    # Settings and root of its own keep the settings of this repository out.
    options = ["-c", str(settings), "--rootdir", str(folder), "-p", "no:cacheprovider"]
    options += ["-p", "blinker_mapping", "--no-summary", "-q", f"--junitxml={report}"]
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tests)],
        cwd=folder,
        env=environment,
        check=False,
    )
    if finished.returncode not in (0, 1):
        raise RuntimeError(f"pytest ended with {finished.returncode}")
    cases = ET.parse(report).iter("testcase")  # noqa: S314  # pytest wrote it just now
    return {
        case.get("name", ""): case.find("failure") is None and case.find("error") is None
        for case in cases
    }


def surprises(outcomes: dict[str, bool]) -> list[str]:
    """Return what is not as `DIFFERENT` says."""
    passed = {name for name, ok in outcomes.items() if ok}
    failed = outcomes.keys() - passed
    found = [f"{name} fails" for name in sorted(failed - DIFFERENT.keys())]
    found += [f"{name} is listed, but passes" for name in sorted(passed & DIFFERENT.keys())]
    found += [f"{name} is listed, but is gone" for name in sorted(DIFFERENT.keys() - outcomes)]
    if len(passed) < AT_LEAST:
        found.append(f"only {len(passed)} tests pass, not at least {AT_LEAST}")
    return found


def main() -> int:
    blinker_version = version("blinker")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        outcomes = run(download(blinker_version, folder), folder)
    problems = surprises(outcomes)
    print(f"\nblinker {blinker_version}: {sum(outcomes.values())} of its own tests pass on ours")
    for test, reason in DIFFERENT.items():
        print(f"  not {test}: it {reason}")
    for problem in problems:
        print(f"SURPRISE: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
