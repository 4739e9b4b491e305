"""What all tests share: registries of their own, and a default registry that forgets."""

from __future__ import annotations

import gc
import os
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import madcrow_events
from madcrow_events import EventDispatcher, EventSignal, SignalRegistry, madcrow_signals

pytest.register_assert_rewrite("support")

# How long an example takes says more about the machine than about the package.
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for where all that the tests need has been installed."""
    parser.addoption("--no-skips", action="store_true", help="fail if a test was skipped")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run in one process what others would disturb, stress tests; and some files, to begin soon."""
    are_many = all(Path(argument).is_dir() for argument in config.args)
    return None if are_many and "not soak and not once" in config.option.markexpr else 0


@pytest.fixture(scope="module", autouse=True)
def _small_heap() -> None:
    """Let a collection of garbage look at what these tests make, not at all that was before."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail if a test was skipped that must not be."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--no-skips") and reporter and reporter.stats.get("skipped"):
        reporter.write_line("--no-skips: some were skipped", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _forgetful_default_registry() -> Iterator[None]:
    """Whatever a test does to the default registry and dispatcher is undone."""
    with madcrow_signals.isolated(empty=True):
        yield


@pytest.fixture
def signals() -> SignalRegistry:
    """Return a strict registry without events."""
    return SignalRegistry()


@pytest.fixture
def signal(signals: SignalRegistry) -> EventSignal[Any]:
    """Return an event of that registry, which carries whatever it is given."""
    return signals.signal("thing_happened")


@pytest.fixture
def dispatcher(signals: SignalRegistry) -> Iterator[EventDispatcher]:
    """Return a dispatcher of that registry, which has nothing left to do when the test ends."""
    with EventDispatcher(signals) as dispatcher:
        yield dispatcher


@pytest.fixture
def scale(request: pytest.FixtureRequest) -> float:
    """Return the part of its full count that a stress test does: all of it under `-m soak`."""
    return 1.0 if request.config.getoption("-m") == "soak" else 0.1


@pytest.fixture
def threads_switch_often() -> Iterator[None]:
    """Let threads take turns every 10 microseconds, so that they meet at many more places."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the scripts of a new environment, which also has what this one has."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    scheme = {"base": str(folder), "platbase": str(folder)}
    paths = sysconfig.get_paths("venv", vars=scheme)
    ours = Path(madcrow_events.__file__).parents[1]
    installed = f"{ours}\n{sysconfig.get_path('purelib')}\n"
    (Path(paths["purelib"]) / "installed.pth").write_text(installed)
    return Path(paths["scripts"])
