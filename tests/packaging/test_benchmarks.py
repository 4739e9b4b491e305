"""The benchmark of a clone works: each of its rows can be measured, and what got worse is found."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import FrameType
from xml.etree import ElementTree as ET

import pytest

import madcrow_events
from benchmarks import instructions
from benchmarks.measuring import OURS, Effort, Line, Measured, measure
from benchmarks.peers import Peer, installed
from benchmarks.pictures import draw
from benchmarks.rows import HOT, ROWS
from benchmarks.table import as_json, is_reached, shown

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
PACKAGE = Path(madcrow_events.__file__).parent
QUICK = Effort(is_quick=True)


def run_benchmark(
    folder: Path, *arguments: object, module: str = "tests.benchmarks"
) -> subprocess.CompletedProcess[str]:
    """Run the benchmark in a clone, with the package that is there or else with the installed."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.mark.parametrize("row", ROWS)
def test_each_row_can_be_measured(row: str, tmp_path: Path) -> None:
    results = [measure(row, line, QUICK) for line in ROWS[row](QUICK)]

    assert results
    for measured in results:
        assert OURS in measured.costs
        assert all(cost > 0 for cost in measured.costs.values()), measured
        assert measured.line.work in shown(measured)
    assert json.loads(json.dumps(as_json(results)))
    pictures = draw(results, tmp_path)
    assert pictures
    for picture in pictures:
        ET.fromstring(picture.read_text(encoding="utf-8"))  # noqa: S314  # our own


def test_only_hot_rows_have_hot_lines_each_of_another_name() -> None:
    hot = [(row, line.work) for row in HOT for line in ROWS[row](QUICK) if line.is_hot]

    assert {row for row, _ in hot} == {*HOT}
    assert len({work for _, work in hot}) == len(hot)


@pytest.mark.parametrize("make", installed(), ids=lambda make: make.name)
def test_a_peer_calls_all_its_handlers(make: type[Peer]) -> None:
    """Some hold them weakly."""
    called: list[object] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name == "handler":
            called.append(frame.f_code)

    peer = make()
    act = peer.emit()
    if act is None:
        act = peer.emit_typed()
    assert act is not None
    peer.fill(peer.keyword_handler, 3)
    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(None)

    assert len(called) == 3


def measured_as(ours: float, *, bound: float | None, leads: bool = False) -> Measured:
    line = Line(work="work", contenders={}, base="bare", bound=bound, leads=leads)
    return Measured("row", line, {"bare": 10, OURS: ours, "pyee": 25})


def test_a_line_is_reached_within_its_bound_and_ahead_of_the_peers_where_it_must_be() -> None:
    assert is_reached(measured_as(20, bound=2))
    assert not is_reached(measured_as(21, bound=2))
    assert is_reached(measured_as(30, bound=None))
    assert not is_reached(measured_as(30, bound=4, leads=True))
    assert "BEHIND pyee" in shown(measured_as(30, bound=4))


def test_it_runs_from_a_clone_and_writes_what_it_is_asked_for(tmp_path: Path) -> None:
    done = run_benchmark(
        ROOT, "emit", "--quick", "--json", tmp_path / "it.json", "--svg", tmp_path / "pictures"
    )

    assert done.returncode in (0, 1), done.stderr
    assert "emit, 1,000 handlers" in done.stdout
    assert "What the peers leave out" in done.stdout
    assert json.loads((tmp_path / "it.json").read_text(encoding="utf-8"))["lines"]
    assert (tmp_path / "pictures" / "emit.svg").exists()


@pytest.mark.parametrize("module", ["tests.benchmarks", "tests.benchmarks.outbox"])
def test_an_unknown_row_is_refused(module: str) -> None:
    done = run_benchmark(ROOT, "emitt", module=module)

    assert done.returncode == 2
    assert "no such row: emitt" in done.stderr


def test_that_of_the_outbox_measures_each_row() -> None:
    pytest.importorskip("sqlalchemy")
    done = run_benchmark(ROOT, "--quick", "--database", "sqlite", module="tests.benchmarks.outbox")

    assert done.returncode in (0, 1), done.stderr
    for work in ("append, 8 producers, one key", "drain, batch 100", "commit to call"):
        assert work in done.stdout


def test_the_page_of_the_costs_is_written_for_all_rows_only() -> None:
    done = run_benchmark(ROOT, "emit", "--page")

    assert done.returncode == 2
    assert "--page is for all rows" in done.stderr


def test_more_than_three_per_cent_more_instructions_are_too_many(
    capsys: pytest.CaptureFixture[str],
) -> None:
    recorded = {"emit": 2.0}

    assert instructions.is_worse("emit", 1000, 2.07, recorded)
    assert not instructions.is_worse("emit", 1000, 2.05, recorded)
    assert not instructions.is_worse("new", 1000, 2.05, recorded)
    assert not instructions.is_worse("emit", 1000, 2.07, None)
    assert "WORSE" in capsys.readouterr().out


def test_values_are_recorded_for_all_hot_lines() -> None:
    recorded = json.loads(instructions.RECORDED.read_text(encoding="utf-8"))
    hot = {line.work for row in HOT for line in ROWS[row](QUICK) if line.is_hot}

    assert recorded
    for python, values in recorded.items():
        assert {*values} == hot, python


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a clone that has what is counted, and its package."""
    ignored = shutil.ignore_patterns("__pycache__", "instructions.json")
    shutil.copytree(
        ROOT / "tests" / "benchmarks", tmp_path / "tests" / "benchmarks", ignore=ignored
    )
    shutil.copytree(PACKAGE, tmp_path / "src" / PACKAGE.name, ignore=ignored)
    return tmp_path


def add_a_call(source: Path) -> None:
    """Let each emission call one function more, which reads one attribute."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    (dispatcher,) = (
        it for it in tree.body if isinstance(it, ast.ClassDef) and it.name == "EventDispatcher"
    )
    (emit,) = (
        it for it in dispatcher.body if isinstance(it, ast.FunctionDef) and it.name == "emit"
    )
    emit.body[1:1] = ast.parse("_one_more(self, event)").body  # after the docstring
    tree.body += ast.parse("def _one_more(it, event): return it.signals is event").body
    source.write_text(ast.unparse(ast.fix_missing_locations(tree)), encoding="utf-8")


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_one_call_more_for_each_emission_is_found(clone: Path) -> None:
    recording = run_benchmark(clone, "--record", "empty")
    assert recording.returncode == 0, recording.stderr

    add_a_call(clone / "src" / PACKAGE.name / "dispatcher" / "_dispatcher.py")
    checked = run_benchmark(clone, "--check", "empty")

    assert checked.returncode == 1, checked.stdout + checked.stderr
    assert "WORSE" in checked.stdout


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_nothing_can_be_compared_without_recorded_values(clone: Path) -> None:
    done = run_benchmark(clone, "--check", "emit")

    assert done.returncode == 2
    assert "nothing is recorded for Python" in done.stderr
