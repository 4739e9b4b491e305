"""The page of the command has each subcommand, option, field and status, and real pictures."""

from __future__ import annotations

import importlib
import pkgutil
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, is_typeddict

import pytest

pytest.importorskip("rich")
typer_main = pytest.importorskip("typer.main")

from madcrow_events import cli  # noqa: E402  # once rich and typer are known to be there
from madcrow_events.cli import _errors  # noqa: E402  # likewise
from madcrow_events.cli._commands import COMMAND  # noqa: E402  # likewise
from madcrow_events.cli._doctor import FindingKind  # noqa: E402  # likewise
from madcrow_events.signals import CalledHandler, LeftOutHandler  # noqa: E402  # likewise
from support.hooks import load_hook  # noqa: E402  # likewise

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "command.md").read_text(encoding="utf-8")

command, terminal = load_hook("command"), load_hook("terminal")


def records() -> Iterator[type]:
    """Yield the classes of which the JSON consists."""
    for found in pkgutil.walk_packages(cli.__path__, f"{cli.__name__}."):
        module = importlib.import_module(found.name)
        yield from (
            it
            for it in vars(module).values()
            if is_typeddict(it) and it.__module__ == module.__name__
        )
    yield from (CalledHandler, LeftOutHandler)


def options(of: Any) -> Iterator[str]:
    """Yield the options of a command and of its subcommands."""
    yield from (name for it in of.params for name in it.opts if name.startswith("--"))
    for subcommand in getattr(of, "commands", {}).values():
        yield from options(subcommand)


def line(text: str, *, status: int = 0, columns: int = 80, **files: str) -> Any:
    """Return a line for a shell, beside files."""
    named = tuple((f"{name}.py", source) for name, source in files.items())
    return terminal.Line(text, status, named, columns)


@pytest.mark.parametrize("subcommand", terminal.subcommands())
def test_a_subcommand_has_a_section_with_a_picture(subcommand: str) -> None:
    section = PAGE.partition(f"\n## `{subcommand}`\n")[2].partition("\n## ")[0]
    (pictured,) = terminal.PICTURE.finditer(section)
    assert pictured["line"].startswith(f"madcrow-events {subcommand}")


def test_each_marker_is_a_picture_of_a_subcommand() -> None:
    pictured = [it["line"] for it in terminal.PICTURE.finditer(PAGE)]
    assert len(pictured) == PAGE.count("<!-- picture") == len({*pictured})
    assert {it.split()[1] for it in pictured} <= {it.split()[0] for it in terminal.subcommands()}


@pytest.mark.parametrize("option", sorted({*options(typer_main.get_command(COMMAND))} - {"--help"}))
def test_an_option_is_on_the_page(option: str) -> None:
    assert re.search(rf"{option}\b", PAGE)


@pytest.mark.parametrize("record", [*records()], ids=lambda it: it.__name__)
def test_a_record_has_one_table_with_each_of_its_fields(record: type) -> None:
    assert PAGE.count(f"<!-- fields: {record.__name__} -->") == 1
    table = command.fields_of(record.__name__)
    rows = re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", table, re.MULTILINE)
    assert rows == [*record.__annotations__]


def test_an_exit_status_is_in_the_table() -> None:
    statuses = {getattr(_errors, it) for it in _errors.__all__ if it.isupper()}
    found = re.findall(r"^\| (\d+) \| .+ \|$", command.statuses(), re.MULTILINE)
    assert [*map(int, found)] == sorted({0, *statuses})
    assert PAGE.count(command.STATUSES) == 1


def test_a_table_has_types_of_json() -> None:
    table = command.fields_of("CallRecord")
    assert '| `status` | `"returned"` or `"raised"` or `"pending"` |' in table
    assert "| `raised` | object or null |" in table
    assert "| `formerly` | array of strings |" in command.fields_of("EventRecord")
    assert "None" not in "".join(map(command.fields_of, command.records()))


def test_a_record_that_is_not_there_is_an_error_that_names_the_others() -> None:
    with pytest.raises(command.CommandError, match=r"called Evnt.* 'EventRecord'"):
        command.with_tables("<!-- fields: Evnt -->")


@pytest.mark.parametrize("name", [name for name, _ in terminal.FILE.findall(PAGE)])
@pytest.mark.once
def test_a_file_of_the_page_is_an_application(name: str) -> None:
    """It can be imported, and declares events."""
    module = name.removesuffix(".py")
    events = f"madcrow-events events --json --app {module} --app-dir ."
    files = tuple(terminal.FILE.findall(PAGE))
    assert f'"model": "{module}.' in terminal.printed_by(terminal.Line(events, 0, files, 80))


@pytest.mark.once
def test_the_pictures_of_the_page_can_be_drawn() -> None:
    """They have no path of this machine, no other host, and no colour but those of the site."""
    made = terminal.with_pictures(PAGE)
    pictures = re.findall(r'<div class="terminal".+?</svg></div><div id.+?</div>', made)
    assert len(pictures) == PAGE.count("<!-- picture")
    css = (ROOT / "docs" / "assets" / "site.css").read_text(encoding="utf-8")
    for picture in pictures:
        assert picture.count("<svg") == 2
        assert "url(" not in picture
        assert tempfile.gettempdir() not in picture
        assert str(ROOT) not in picture
        assert re.search(r'<div id="terminal-\d+" hidden><pre>.{20,}</pre>', picture)
        for colour in re.findall(r'fill(?:: |=")([^;"} ]+)', picture):
            assert f"{colour.removeprefix('var(').removesuffix(')')}: " in css


def test_a_line_that_fails_is_an_error_with_what_it_printed() -> None:
    with pytest.raises(terminal.TerminalError, match=r"status 2, not 0.*\n.*no module is called"):
        terminal.printed_by(line("madcrow-events events --app nowhere"))


def test_a_line_may_have_to_fail() -> None:
    printed = terminal.printed_by(line("madcrow-events events --app nowhere", status=2))
    assert "no module is called nowhere" in printed


def test_a_line_runs_beside_the_files_of_the_page() -> None:
    """As in a terminal of that width, with colours."""
    source = "from madcrow_events import on_event\non_event('user_*')(lambda: None)\n"
    app = "madcrow-events handlers user_logged_in --app shop --app-dir ."
    printed = terminal.printed_by(line(app, columns=40, shop=source))
    assert "\N{ESCAPE}[1;36muser_logged_in" in printed
    assert "shop.py:2" in printed
    assert max(map(len, terminal._plain(printed).splitlines())) <= 40


def test_a_page_without_a_picture_is_left_as_it_is() -> None:
    page = "```console\n$ madcrow-events events\n```\n"
    assert terminal.on_page_markdown(page) == command.on_page_markdown(page) == page


def test_the_page_has_each_kind_of_finding() -> None:
    kinds = PAGE.partition("| kind |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", kinds, re.MULTILINE) == [*get_args(FindingKind)]


def drawn(text: str, columns: int = 80) -> list[tuple[str, str]]:
    """Return the parts of a picture, each with its style."""
    picture = terminal.picture(text, columns, "it")
    styles = dict(re.findall(r"\.(it-r\d+) \{ (.+?) \}", picture))
    parts = re.findall(r'<text class="(it-r\d+)"[^>]*>(.+?)</text>', picture)
    return [(part.replace("&#160;", " "), styles[name]) for name, part in parts]


def test_a_colour_is_one_of_the_site() -> None:
    red, muted = "\N{ESCAPE}[1;31mred\N{ESCAPE}[0m", "\N{ESCAPE}[2mdim\N{ESCAPE}[0m"
    assert drawn(f"{red}{muted}plain") == [
        ("red", "fill: var(--terminal-red);font-weight: bold"),
        ("dim", "fill: var(--terminal-dim)"),
        ("plain", "fill: var(--terminal-ink)"),
    ]


def test_a_colour_that_the_site_lacks_is_an_error() -> None:
    with pytest.raises(terminal.TerminalError, match="#ff8700"):
        terminal.picture("\N{ESCAPE}[38;5;208morange", 80, "it")


def test_a_line_that_is_too_long_is_broken_as_a_terminal_breaks_it() -> None:
    """Wherever it ends, and not between words."""
    assert [text for text, _ in drawn("a word\n\nlonger", 4)] == ["a wo", "rd", "long", "er"]


def test_what_is_printed_is_text_and_not_markup() -> None:
    """In the picture, and in the text for the search and for those who listen."""
    printed = dict.fromkeys(terminal.WIDTHS, "[b]<b>&\n")
    figure = terminal.figure("madcrow-events show '<b>'", 1, printed)
    assert figure.count("[b]&lt;b&gt;&amp;") == 3
    assert "<b>" not in figure
    assert "\n" not in figure
