"""The subcommand: what it writes, and the status it ends with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from madcrow_events.cli._doctor._findings import FindingKind
from madcrow_events.cli._drawing import DRAWINGS

FAULTY = """
import time
from madcrow_events import BaseEventContext, HandlerGroup, load_plugins, madcrow_signals, on_event

@madcrow_signals.event
class OrderLost(BaseEventContext):
    "Nobody handles it."

class Forgotten(BaseEventContext): ...

for name in ("order_placed", "order_lst"):
    madcrow_signals.signal(name)
madcrow_signals.signal("mail_sent", formerly="mail_posted")

def make():
    def handle(): ...
    return handle

for _ in range(3):
    on_event("order_placed")(make())

@on_event("order_lst")
@on_event("order_gone")
@on_event("mail_posted")
@on_event("ordr_*")
@on_event(Forgotten)
def handle(): ...

group = HandlerGroup("faulty")
group.on("shop_opened", optional=True)(handle)
group.register()
time.sleep(0.6)

def start():
    load_plugins()
"""
SOUND = """
from madcrow_events import BaseEventContext, madcrow_signals, on_event

@madcrow_signals.event
class OrderPlaced(BaseEventContext): ...

@on_event(OrderPlaced)
def handle(): ...
"""


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: it for name, it in os.environ.items() if "MADCROW" not in name}
    environment |= {f"MADCROW_EVENTS_{name}": it for name, it in variables.items()}
    command = [sys.executable, "-m", "madcrow_events", "doctor", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def faulty(tmp_path, install):
    """A folder with an application that has one fault of each kind."""
    (tmp_path / "faulty.py").write_text(FAULTY)
    folder = tmp_path / "site-packages"
    install("bad", "1 / 0")
    install("lacking", "1 / 0", requires="absent-thing")
    (tmp_path / "faulty.py").write_text(f"import sys\nsys.path.append({str(folder)!r})\n{FAULTY}")
    return tmp_path


@pytest.mark.once
def test_an_application_with_a_fault_of_each_kind(faulty):
    """All are found, at their lines, and no other; the status is 1."""
    command = run(faulty, "--app", "faulty", "--app-dir", ".", "--json", PLUGINS_DENY="absent")
    found = json.loads(command.stdout)
    kinds = [it["kind"] for it in found["findings"]]
    assert kinds == [*FindingKind.__args__]
    assert command.returncode == 1
    lines = (faulty / "faulty.py").read_text().splitlines()
    at = {it["kind"]: lines[it["line"] - 1] for it in found["findings"] if it["line"]}
    assert at == {
        "old_name": '@on_event("mail_posted")',
        "repeated_handler": "    def handle(): ...",
        "similar_names": "    madcrow_signals.signal(name)",
        "slow_import": "import sys",
        "undeclared_event": '@on_event("order_gone")',
        "unhandled_event": "@madcrow_signals.event",
        "unlisted_plugins": "    load_plugins()",
        "unmatched_class": '@on_event("order_lst")',
        "unmatched_optional": '@on_event("order_lst")',
        "unmatched_pattern": '@on_event("order_lst")',
    }
    text = run(faulty, "--app", "faulty", "--app-dir", ".").stdout
    assert text.splitlines()[0] == "Events that nobody handles"
    assert "  faulty.py:7\n  nobody handles order_lost\n  to do: import the module" in text
    assert text.splitlines()[-1] == "4 events, 8 handlers, 2 plugins: 12 findings"


def test_an_application_without_a_fault(tmp_path):
    """It says what was examined; the status is 0."""
    (tmp_path / "sound.py").write_text(SOUND)
    command = run(tmp_path, "--app", "sound", "--app-dir", ".")
    assert command.stdout.startswith("1 event, 1 handler")
    assert command.stdout.endswith(": nothing wrong\n")
    assert (command.returncode, command.stderr) == (0, "")


def test_without_an_application_there_is_nothing_to_examine(tmp_path):
    """That is an error in the use of the command."""
    command = run(tmp_path)
    assert command.returncode == 2
    assert command.stderr == (
        "madcrow-events: name the application to examine, as in --app shop.events\n"
    )


def test_an_application_that_fails_ends_the_command(tmp_path):
    """As it ends the other commands."""
    (tmp_path / "failing.py").write_text("1 / 0")
    command = run(tmp_path, "--app", "failing", "--app-dir", ".")
    assert command.returncode == 3
    assert "ZeroDivisionError" in command.stderr


def test_each_kind_has_a_heading(capsys):
    """Also what an observer follows is drawn."""
    from rich.console import Console

    kinds = FindingKind.__args__
    findings = [
        {
            "kind": it,
            "subject": "it",
            "message": f"wrong: {it}",
            "fix": "x",
            "file": None,
            "line": None,
        }
        for it in kinds
    ]
    record = {
        "events": 2,
        "handlers": 0,
        "plugins": 0,
        "perhaps_handled": ["page_viewed"],
        "findings": findings,
    }
    console = Console(width=80, markup=False)
    console.print(DRAWINGS["doctor"](record, 80))
    shown = capsys.readouterr().out
    assert all(f"wrong: {it}" in shown for it in kinds)
    assert "by an observer or by code that has not run yet: page_viewed" in shown
    assert dedent(shown).splitlines()[-1].strip() == f"2 events, 0 handlers: {len(kinds)} findings"
