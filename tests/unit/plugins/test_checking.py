"""Plugins are checked in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from madcrow_events import madcrow_signals
from madcrow_events.plugins import check_plugins, load_plugins
from support.inside import check_here
from support.plugins import GOOD, Install

TELLS = """
names = ["isolated", "ignore_environment", "no_user_site", "optimize", "dev_mode", "utf8_mode"]
flags = [getattr(sys.flags, name) for name in names]
raise RuntimeError(flags, sys.dont_write_bytecode, set(sys.warnoptions), sys._xoptions)
"""
LINGERS = "threading.Thread(target=threading.Event().wait, args=(60,)).start()"


@pytest.mark.guarantee("P3")
@pytest.mark.once
def test_checking_names_even_a_plugin_that_hangs(install: Install) -> None:
    install("good", GOOD)
    install("hangs", "import time\nprint('busy', flush=True)\ntime.sleep(60)")
    install("vanishes", "import os\nos._exit(7)")
    install("exits", "raise SystemExit")
    install("fails", "1 / 0")
    install("lingers", f"import threading\n{textwrap.dedent(GOOD)}\n{LINGERS}")
    install("lacks", "1 / 0", requires="absent-thing")
    # The one that hangs is given up soon; the others may take as long as a busy machine needs.
    found = check_plugins(deny=["hangs"], timeout=60)
    reports = {report.plugin.distribution: report for report in found}
    found = check_plugins(allow=["hangs"], timeout=3)
    reports |= {it.plugin.distribution: it for it in found if it.plugin.distribution == "hangs"}
    assert {name: report.status for name, report in reports.items()} == {
        "exits": "failed",
        "fails": "failed",
        "good": "loaded",
        "hangs": "failed",
        "lacks": "refused",
        "lingers": "loaded",
        "vanishes": "failed",
    }
    assert "was not loaded within 3 s: it may hang" in reports["hangs"].reason
    assert "its process ended with status 7" in reports["vanishes"].reason
    assert reports["exits"].reason.startswith("SystemExit (")
    assert reports["fails"].reason.startswith("ZeroDivisionError")
    assert reports["good"].handlers == ("good.happened",)
    assert not reports.keys() & set(sys.modules)
    assert not madcrow_signals.subscriptions


def test_what_the_process_of_a_check_does(install: Install, tmp_path: Path) -> None:
    install("ours", GOOD)
    check_here("ours:ours", str(tmp_path / "answer"))
    status, reason, _, events, handlers = json.loads((tmp_path / "answer").read_text())
    assert (status, reason, events, handlers) == (
        "loaded",
        "",
        ["good.happened"],
        ["good.happened"],
    )


def test_a_check_knows_no_event_of_the_application(install: Install) -> None:
    madcrow_signals.signal("order_placed")
    listens = "from madcrow_events import *\ngroup = HandlerGroup('it')\n"
    install("ours", f"{listens}group.on('order_placed')(lambda total: None)")
    (report,) = check_plugins()
    assert report.ok, report


@pytest.mark.guarantee("P3")
def test_a_check_finds_what_a_load_finds(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever else `sys.path` holds: folders as objects, which imports pass over, say."""
    install("ours", GOOD)
    elsewhere = tmp_path / "elsewhere"
    folder = elsewhere / "theirs-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[madcrow_events.handlers]\nx = theirs:group\n")
    many = [f"/nowhere/{'x' * 100}/{number}" for number in range(2000)]  # too much for an argument
    monkeypatch.setattr(sys, "path", [elsewhere, b"nowhere", *sys.path, *many])
    reports = {report.name: report.status for report in check_plugins(timeout=60)}
    assert reports == {"ours:ours": "loaded", "theirs:x": "failed"}
    with madcrow_signals.isolated():
        assert reports == {report.name: report.status for report in load_plugins()}


@pytest.mark.guarantee("P3")
@pytest.mark.parametrize(
    ("attribute", "value", "reason"),
    [
        ("frozen", True, "this program is frozen, and would start itself again"),
        ("frozen", "macosx_app", "this program is frozen, and would start itself again"),
        ("executable", None, "sys.executable names no Python"),
        ("executable", "", "sys.executable names no Python"),
        ("executable", "/nowhere/python", "sys.executable cannot be started (FileNotFoundError)"),
    ],
)
def test_no_other_program_is_started_where_there_is_no_python(
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    attribute: str,
    value: object,
    reason: str,
) -> None:
    """As in a frozen program, whose `sys.executable` is itself: each plugin is refused with why."""
    install("fails", "1 / 0")
    install("lacks", GOOD, requires="absent-thing")
    application = tmp_path / "application"
    application.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    application.chmod(0o755)
    if attribute == "frozen":
        monkeypatch.setattr(sys, "executable", str(application))
    monkeypatch.setattr(sys, attribute, value, raising=False)
    fails, lacks = check_plugins()
    assert not (tmp_path / "started").exists()
    assert fails.status == lacks.status == "refused"
    assert fails.reason == (
        f"it cannot be checked in a process of its own, because {reason}: "
        "see what load_plugins() says"
    )
    assert "it requires packages that are not installed" in lacks.reason
    assert not sys.modules.keys() & {"fails", "lacks"}


@pytest.mark.guarantee("P3")
@pytest.mark.skipif(sys.platform == "win32", reason="the server is a script of a shell")
@pytest.mark.parametrize(
    ("does", "fault"),
    [("exit 3", "ended with status 3"), ("exec sleep 60", "began none within 1 s")],
)
def test_a_program_that_runs_no_python_is_started_once(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, does: str, fault: str
) -> None:
    """`sys.executable` may be a server that has Python in it."""
    install("one", GOOD)
    install("two", GOOD)
    server = tmp_path / "server"
    server.write_text(f"#!/bin/sh\necho began >> {tmp_path}/started\n{does}\n")
    server.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(server))
    one, two = check_plugins(timeout=1)
    assert one.status == two.status == "refused"
    assert f"sys.executable runs no Python (it {fault})" in one.reason == two.reason
    assert (tmp_path / "started").read_text() == "began\n"


@pytest.mark.guarantee("P3")
@pytest.mark.parametrize(
    "options", [[], ["-I", "-OO", "-B", "-Wdefault"], ["-E", "-Xdev", "-Xutf8=0"]]
)
def test_a_check_has_the_options_of_this_python(
    install: Install, tmp_path: Path, options: list[str]
) -> None:
    """And no more of the working directory than a program has that is run as a script."""
    install("tells", f"import sys, json\n{TELLS}\n{textwrap.dedent(GOOD)}")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "json.py").write_text("1 / 0")
    program = tmp_path / "program.py"
    program.write_text(
        f"import sys\nsys.path[:0] = {[it for it in sys.path if it]!r}\n"
        "from madcrow_events.plugins import *\n"
        "print(*check_plugins(timeout=60), *load_plugins(), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, *options, str(program)],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(elsewhere if options else "")},
        capture_output=True,
        text=True,
        check=False,
    )
    checked, loaded = done.stdout.splitlines()
    assert ": failed: RuntimeError" in checked, done
    assert checked.partition(" (")[0] == loaded.partition(" (")[0]
