"""Where the output goes, how wide it is, and what is shown while the command waits."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from madcrow_events.cli import _messages, main
from madcrow_events.cli._completion import complete_event, join_at_colons
from madcrow_events.cli._errors import CommandError
from madcrow_events.cli._messages import say, waiting_for
from madcrow_events.cli._output import Output
from madcrow_events.cli._running import run, status_of
from support.command import SHOP, Command, command

__all__ = ["command"]


@contextmanager
def written_to(out: int, err: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Output]:
    """Yield the output of a process whose standard output and error are these files.

    In the test itself, for pytest replaces both before it.
    """
    with (
        os.fdopen(out, "w", encoding="ascii") as stdout,
        os.fdopen(err, "w", encoding="ascii") as stderr,
        monkeypatch.context() as patch,
    ):
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr)
        output = Output()
        with sys.stdout:
            yield output
        output._file.close()


def test_the_application_cannot_write_to_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Neither by `print`, nor past Python, nor in a program that it starts."""
    out, err = tmp_path / "out", tmp_path / "err"
    number = os.open(out, os.O_WRONLY | os.O_CREAT)
    with written_to(number, os.open(err, os.O_WRONLY | os.O_CREAT), monkeypatch) as output:
        print("printed", flush=True)
        os.write(number, b"written\n")
        subprocess.run([sys.executable, "-c", "print('of a child')"], stdout=number, check=True)
        output.write("the output: Größe\n")
    assert out.read_text() == "the output: Gr\\xf6\\xdfe\n"
    assert err.read_text() == "printed\nwritten\nof a child\n"


def test_a_reader_that_has_gone_ends_the_command(monkeypatch: pytest.MonkeyPatch):
    """Nothing is written afterwards, at the exit, either."""
    reading, writing = os.pipe()
    with written_to(writing, os.open(os.devnull, os.O_WRONLY), monkeypatch) as output:
        os.close(reading)
        with pytest.raises(CommandError) as raised:
            output.write("text\n" * 100_000)
        assert (raised.value.status, str(raised.value)) == (141, "")
        output.write("more")


def test_an_output_without_room_is_an_error(monkeypatch: pytest.MonkeyPatch):
    """As a full disk is."""
    with (
        written_to(
            os.open("/dev/full", os.O_WRONLY), os.open(os.devnull, os.O_WRONLY), monkeypatch
        ) as output,
        pytest.raises(CommandError, match="the output cannot be written: No space left"),
    ):
        output.write("text")


def test_a_closed_output_gets_nothing(command: Command, monkeypatch: pytest.MonkeyPatch):
    """Nor does a closed standard error."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        patch.setattr(sys, "stderr", None)
        assert status_of(["plugins"]) == 0
    assert command("events").status == 0


def test_an_application_may_close_its_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The command still writes its own; a message is lost if there is nowhere to write it."""
    out = tmp_path / "out"
    number = os.open(out, os.O_WRONLY | os.O_CREAT)
    with written_to(number, os.open(os.devnull, os.O_WRONLY), monkeypatch) as output:
        sys.stdout.close()
        say("a message")
        sys.stderr.close()
        say("another")
        output.write("text\n")
    assert out.read_text() == "text\n"


def test_a_forked_process_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Else an application that forks would double the output."""
    out = tmp_path / "out"
    number = os.open(out, os.O_WRONLY | os.O_CREAT)
    with written_to(number, os.open(os.devnull, os.O_WRONLY), monkeypatch) as output:
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: -1)
            output.write("of the child")
        output.write("of the parent")
    assert out.read_text() == "of the parent"


def test_a_message_without_text_is_not_written(command: Command, monkeypatch: pytest.MonkeyPatch):
    """As that of a closed pipe."""

    def closed(*_arguments: object, **_options: object) -> None:
        raise CommandError("", 141)

    monkeypatch.setattr(Output, "write", closed)
    assert command("plugins") == (141, "", "")


@pytest.mark.parametrize("columns", [39, 80, 200])
@pytest.mark.parametrize(
    "arguments",
    [
        ("events",),
        ("handlers",),
        ("show", "order_placed"),
        ("explain", "order_placed", "total=1"),
        ("emit", "order_placed", "order_id=1", "total=120", "--yes"),
        ("emit", "order_paid", "order_id=1", "--yes"),
    ],
    ids=" ".join,
)
def test_text_fits_the_terminal(
    command: Command, monkeypatch: pytest.MonkeyPatch, columns: int, arguments: tuple[str, ...]
):
    """FORCE_COLOR and COLUMNS make a pipe one."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", str(columns))
    told = command.write(shop=SHOP)(*arguments, app="shop").out
    assert told
    told = told.partition("As code")[0]  # which is to be copied, so it is not broken
    assert max(map(len, told.splitlines())) <= columns


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_appears_in_a_terminal_after_a_while(monkeypatch: pytest.MonkeyPatch):
    """What is printed meanwhile stays."""
    monkeypatch.setattr(_messages, "PATIENCE", 0.05)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with waiting_for("importing shop"):
        time.sleep(0.5)
        print("hello", file=sys.stderr)
    assert "importing shop" in sys.stderr.getvalue()
    assert "hello\n" in sys.stderr.getvalue()
    assert threading.active_count() == len(threading.enumerate())


def test_no_bar_appears_if_it_is_quick_or_nobody_sees_it(monkeypatch: pytest.MonkeyPatch):
    """Nothing is written at all."""
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        with waiting_for("importing shop"):
            pass
        assert stream.getvalue() == ""


def test_names_of_events_are_completed(command: Command):
    """Of the application that the line names; one that cannot be imported has none."""
    command.write(shop=SHOP, broken="print('x')\n1 / 0")
    for app, found in (("shop", ["order_paid", "order_placed"]), ("broken", [])):
        line = SimpleNamespace(params={"app": app, "app_dir": str(command.folder)})
        assert complete_event(line, "order_") == found  # type: ignore[arg-type]


def test_a_line_that_bash_has_split_at_colons_is_joined():
    """The number of the current word is counted anew; other lines stay."""
    words = ["madcrow-events", "show", "--app", "shop.main", ":", "create_app", "order_"]
    line = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": "6"}
    join_at_colons(line)
    assert line["COMP_WORDS"].split("\n") == [*words[:3], "shop.main:create_app", "order_"]
    assert line["COMP_CWORD"] == "4"
    for other in ({}, {"COMP_WORDS": "madcrow-events\nshow\norder_", "COMP_CWORD": "2"}):
        before = {**other}
        join_at_colons(other)
        assert other == before


def test_the_process_ends_with_the_status(monkeypatch: pytest.MonkeyPatch):
    """At once, if a thread of the application would keep it."""
    ends, go_on = [], threading.Event()
    monkeypatch.setattr(os, "_exit", ends.append)
    with pytest.raises(SystemExit) as ended:
        run(["events", "--nothing"])
    assert (ended.value.code, ends) == (2, [])
    thread = threading.Thread(target=go_on.wait)
    thread.start()
    run(["events", "--nothing"])
    go_on.set()
    thread.join()
    assert ends == [2]


@pytest.mark.parametrize("missing", ["rich", "typer"])
def test_without_the_extra_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str
):
    """In one line."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        f"madcrow-events: {missing} is missing: pip install 'madcrow-events[cli]'\n"
    )


def test_the_command_runs_with_the_arguments_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """It ends the process with the status of the command."""
    monkeypatch.setattr(sys, "argv", ["madcrow-events", "--version"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("madcrow-events ")


def test_importing_the_module_runs_nothing(capsys: pytest.CaptureFixture[str]):
    """Tools import each module of a package."""
    before = [*sys.path]
    import_module("madcrow_events.__main__")
    assert sys.path == before
    assert capsys.readouterr() == ("", "")
