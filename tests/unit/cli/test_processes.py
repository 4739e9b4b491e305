"""The command as users run it: in processes, pipes and terminals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from textwrap import dedent

import pytest

from support.command import SHOP, in_a_process
from support.terminal import in_a_terminal

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals"),
]

EVENTS = 200
HANDLERS = 5  # of each event
SHOP_ARGUMENTS = ("--app", "shop", "--app-dir", ".")
WITHOUT_EXTRA = "import sys; sys.modules['{}'] = None; from madcrow_events.cli import main; main()"

EVERY = [
    ("events",),
    ("events", "order_*"),
    ("handlers",),
    ("show", "order_placed"),
    ("explain", "order_placed", "order_id=7", "total=12"),
    ("emit", "order_paid", "order_id=7", "--yes"),
    ("schema",),
    ("schema", "--format", "asyncapi"),
]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(dedent(SHOP))
    return tmp_path


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an application with 200 events and 1,000 handlers."""
    folder = tmp_path_factory.mktemp("warehouse")
    lines = ["from madcrow_events import BaseEventContext, madcrow_signals, on_event"]
    for number in range(EVENTS):
        name = f"Shelf{number}Emptied"
        lines += [
            "@madcrow_signals.event",
            f"class {name}(BaseEventContext):",
            f'    """Shelf {number} is empty."""',
            "    left: int",
        ]
        for handler in range(HANDLERS):
            lines += [
                f"@on_event({name}, priority={handler})",
                f"def on_{number}_{handler}(left): ...",
            ]
    (folder / "shop.py").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("arguments", EVERY, ids=" ".join)
def test_each_subcommand_in_a_pipe(shop: Path, arguments: tuple[str, ...]):
    """There are no escape codes, no broken lines, and no spaces at the ends of lines."""
    told = in_a_process(*arguments, *SHOP_ARGUMENTS, folder=shop)
    assert (told.status, told.err) == (0, "")
    assert "\x1b" not in told.out
    assert all(line == line.rstrip() for line in told.out.splitlines())
    if arguments[0] != "schema":
        as_json = in_a_process(*arguments, *SHOP_ARGUMENTS, "--json", folder=shop)
        assert as_json.record


@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize("arguments", EVERY[:6], ids=" ".join)
def test_each_subcommand_in_a_terminal(shop: Path, arguments: tuple[str, ...], columns: int):
    """What it has to say fits, in colours; no name that a pipe gets is lost or broken."""
    seen = in_a_terminal(*arguments, *SHOP_ARGUMENTS, folder=shop, columns=columns)
    assert seen.status == 0
    assert "\x1b[" in seen.sent
    sent = re.sub(r"\x1b\[[0-9;]*m", "", seen.sent)
    sent = sent.partition("As code")[0]  # which is to be copied, so it is not broken
    assert max(map(len, sent.splitlines())) <= columns
    piped = in_a_process(*arguments, *SHOP_ARGUMENTS, folder=shop).out
    names = re.findall(r"\b[a-z]+_[a-z]+\b", piped)
    assert [it for it in names if it not in " ".join(seen.lines)] == []


def test_no_color_is_honoured(shop: Path):
    """As no-color.org has it: text may still be bold."""
    seen = in_a_terminal("events", *SHOP_ARGUMENTS, folder=shop, env={"NO_COLOR": "1"})
    assert "\x1b[3" not in seen.sent
    assert "\x1b[1;3" not in seen.sent
    assert "\x1b[1;3" in in_a_terminal("events", *SHOP_ARGUMENTS, folder=shop).sent


def test_the_command_asks_in_a_terminal(shop: Path):
    """It lists the handlers first."""
    for answer, status, told in (("n\n", 1, "Aborted"), ("y\n", 0, "shop.write_audit")):
        seen = in_a_terminal(
            *("emit", "order_paid", "order_id=7"),
            *SHOP_ARGUMENTS,
            folder=shop,
            answers={"Emit it? [y/N]": answer},
        )
        assert seen.status == status
        assert "order_paid would call, in this order:" in seen.lines
        assert any(told in line for line in seen.lines[3:])


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_the_command_says_what_to_install(missing: str):
    """In one line."""
    told = in_a_process("events", program=("-c", WITHOUT_EXTRA.format(missing)))
    message = f"madcrow-events: {missing} is missing: pip install 'madcrow-events[cli]'\n"
    assert told == (2, "", message)


def test_a_large_application_is_listed_about_as_fast_as_it_is_imported(warehouse: Path):
    """`events --json` takes less than 1.3 times as long as the import, with Python's start."""
    listing = ("-m", "madcrow_events", "events", "--json", *SHOP_ARGUMENTS)

    def seconds(*arguments: str) -> float:
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *arguments], cwd=warehouse, capture_output=True, check=True
        )
        if arguments is listing:
            assert len(json.loads(done.stdout)) > EVENTS
        return time.perf_counter() - began

    rounds = [(seconds("-c", "import shop"), seconds(*listing)) for _ in range(7)]
    alone, listed = (min(it) for it in zip(*rounds, strict=True))
    print(f"import {alone:.3f} s, events --json {listed:.3f} s: {listed / alone:.2f} times")
    assert listed < 1.3 * alone


def test_a_large_application_is_drawn(warehouse: Path):
    """Each of its events and handlers is there."""
    seen = in_a_process("handlers", *SHOP_ARGUMENTS, folder=warehouse)
    assert seen.out.count("shop.on_") == EVENTS * HANDLERS


def test_the_working_directory_is_on_the_path_only_if_it_is_asked_for(shop: Path):
    """With `python -m`, too."""
    told = in_a_process("events", "--app", "shop", folder=shop)
    assert told.status == 2
    assert "no module is called shop" in told.err
    (shop / "json.py").write_text("raise AssertionError('a file of the working directory')")
    assert in_a_process("events", "--json", folder=shop).status == 0


def test_an_application_that_takes_long_shows_a_bar(shop: Path):
    """In a terminal, after a second; it is gone at the end. A pipe has none."""
    (shop / "slow.py").write_text("import time\ntime.sleep(2.5)\nprint('at last')")
    seen = in_a_terminal("events", "--app", "slow", "--app-dir", ".", folder=shop)
    assert "importing slow" in seen.sent
    assert "0:00:0" in seen.sent
    assert not any("importing slow" in line for line in seen.lines)
    assert any("at last" in line for line in seen.lines)
    assert any("user_logged_in" in line for line in seen.lines)
    piped = in_a_process("events", "--app", "slow", "--app-dir", ".", folder=shop)
    assert piped.err.startswith("at last\nslow declares no event")


def test_what_an_application_writes_past_python_does_not_mix_with_the_output(shop: Path):
    """As what a program does that it starts."""
    (shop / "loud.py").write_text(
        "import os, atexit\nos.write(1, b'bytes\\n')\nos.system('echo from a shell')\n"
        "atexit.register(print, 'at the end')"
    )
    told = in_a_process("events", "--json", "--app", "loud", "--app-dir", ".", folder=shop)
    assert told.record
    lines = told.err.splitlines()
    assert [lines[0], lines[1], lines[-1]] == ["bytes", "from a shell", "at the end"]


def test_threads_of_the_application_do_not_keep_the_command(shop: Path):
    """Also those that never end."""
    (shop / "threads.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait).start()"
    )
    told = in_a_process("events", "--json", "--app", "threads", "--app-dir", ".", folder=shop)
    assert told.status == 0
    assert told.record


def test_a_closed_pipe_ends_the_command_quietly(warehouse: Path):
    """As when `head` has read enough."""
    for arguments in (("events",), ("handlers", "--json"), ("schema",)):
        line = '"$0" -m madcrow_events "$@" | true; exit "${PIPESTATUS[0]}"'
        told = subprocess.run(
            ["/bin/bash", "-c", line, sys.executable, *arguments, *SHOP_ARGUMENTS],
            cwd=warehouse,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert (told.returncode, told.stderr) == (141, "")


def test_ctrl_c_while_an_application_is_imported(shop: Path):
    """The command says where it was."""
    (shop / "stuck.py").write_text(
        "import time\nprint('begun', flush=True)\nfor _ in range(600):\n    time.sleep(0.1)"
    )
    # A shell's background jobs do not hear of Ctrl-C, and neither do their children.
    program = "import signal, runpy; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += "runpy.run_module('madcrow_events', run_name='__main__')"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "events", "--app", "stuck", "--app-dir", "."],
        cwd=shop,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "begun\n"
    told = ""
    for _ in range(20):  # one that comes in the middle of a finalizer is lost
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            _, told = process.communicate(timeout=2)
            break
    assert process.returncode == 130
    assert re.fullmatch(r"madcrow-events: interrupted at stuck\.py:[2-4]\n", told)


def test_an_output_that_cannot_write_every_letter(shop: Path):
    """Letters that it lacks are escaped."""
    (shop / "names.py").write_text(
        "from madcrow_events import madcrow_signals\nmadcrow_signals.signal('x', 'Größe: 例')"
    )
    told = in_a_process(
        *("events", "x", "--app", "names", "--app-dir", "."),
        folder=shop,
        env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )
    assert told.status == 0
    assert "Gr\\xf6\\xdfe: \\u4f8b" in told.out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_for_a_shell_is_written(shell: str):
    """Of the subcommands, and of the events of the application that a line names."""
    told = in_a_process(env={"_MADCROW_EVENTS_COMPLETE": f"source_{shell}"})
    assert told.status == 0
    assert "madcrow-events" in told.out


def test_names_of_events_are_completed(shop: Path):
    """What the application prints or raises is left out."""
    (shop / "broken.py").write_text("print('hello')\n1 / 0")
    both = "order_paid\norder_placed"
    for app, found in (("shop", both), ("shop : write_audit", both), ("broken", "")):
        line = f"madcrow-events show --app {app} --app-dir . order_"
        told = in_a_process(
            folder=shop,
            env={
                "_MADCROW_EVENTS_COMPLETE": "complete_bash",
                "COMP_WORDS": line,
                "COMP_CWORD": str(len(line.split()) - 1),
            },
        )
        assert (told.status, told.out.strip(), told.err) == (0, found, "")


def test_the_command_is_installed_as_a_script():
    """Its name is that of the distribution."""
    script = Path(sys.executable).parent / "madcrow-events"
    done = subprocess.run([script, "--help"], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.startswith("Usage: madcrow-events ")
    assert os.access(script, os.X_OK)
