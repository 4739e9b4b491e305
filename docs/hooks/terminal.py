"""Draw what the command prints in a terminal, as the documentation is built.

The command itself prints it, with the files that the page shows, so that the page cannot show
anything else.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from html import escape
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

PICTURE = re.compile(
    r"(?P<fence>^```console\n\$ (?P<line>madcrow-events .+)\n```\n)\n"
    r"<!-- picture(?:: status (?P<status>\d+))? -->$",
    re.MULTILINE,
)
"""A line for a shell, and below it the place for what it prints; the status is 0 if none stands."""

FILE = re.compile(r'^```python title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
"""A file of the page, beside which its lines run."""

WIDTHS = {"wide": 80, "narrow": 44}
"""How many columns the terminal has: on a desk and on a phone."""

GREETER = """
from madcrow_events import HandlerGroup

group = HandlerGroup("greeter")
group.signal("greeter.greeted", "Somebody was greeted.")


@group.on("user_logged_in")
def greet(email):
    return f"Hello, {email}!"
"""
"""A plugin that is installed in the pictures."""

_COLOURS = ("ink", "ink", "red", "green", "yellow", "blue", "magenta", "cyan", "ink")
_COLUMN, _ROW, _MARGIN = 12.2, 24.4, 16


class TerminalError(Exception):
    """A picture cannot be drawn; the message says what to mend."""


class Line(NamedTuple):
    """A line for a shell.

    Attributes:
        text: the line.
        status: the exit status that it must have.
        files: the texts of the files that are in its folder, by name.
        columns: how wide the terminal is.
    """

    text: str
    status: int
    files: tuple[tuple[str, str], ...]
    columns: int


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers by the pictures; mkdocs calls this for each page."""
    try:
        return with_pictures(markdown)
    except TerminalError as error:
        from mkdocs.exceptions import PluginError  # the tests have no mkdocs

        raise PluginError(f"what a command prints cannot be drawn: {error}") from error


def with_pictures(markdown: str) -> str:
    """Return a page with a picture in place of each marker.

    Raises:
        TerminalError: a line has another status than the page says, or a colour that the site
            does not have.
    """
    found = [*PICTURE.finditer(markdown)]
    files = tuple(FILE.findall(markdown))
    lines = [
        Line(it["line"], int(it["status"] or 0), files, columns)
        for it in found
        for columns in WIDTHS.values()
    ]
    with ThreadPoolExecutor() as pool:
        printed = iter([*pool.map(printed_by, lines)])
    pictures = {
        it["line"]: figure(it["line"], number, {width: next(printed) for width in WIDTHS})
        for number, it in enumerate(found, 1)
    }
    return PICTURE.sub(lambda it: f"{it['fence']}\n{pictures[it['line']]}", markdown)


def subcommands() -> list[str]:
    """Return the subcommands, such as `plugins check`, in the order of the help.

    A group that only has subcommands, and does nothing itself, is none.
    """
    import typer.main

    from madcrow_events.cli._commands import COMMAND

    def names(group: Any, prefix: str = "") -> Iterator[str]:
        for name, command in getattr(group, "commands", {}).items():
            if getattr(command, "invoke_without_command", True):
                yield prefix + name
            yield from names(command, f"{name} ")

    return [*names(typer.main.get_command(COMMAND))]


@cache
def printed_by(line: Line) -> str:
    """Return what a line prints in a terminal, with its escape codes.

    Raises:
        TerminalError: the line has another status than it must have.
    """
    command = f"{shlex.quote(sys.executable)} -m madcrow_events"
    with TemporaryDirectory() as folder:
        for name, text in line.files:
            (Path(folder) / name).write_text(text, encoding="utf-8")
        plugins = Path(folder) / "plugins"
        install(plugins)
        done = subprocess.run(  # noqa: S603  # the lines stand on our own pages
            ["sh", "-c", line.text.replace("madcrow-events", command, 1)],  # noqa: S607
            cwd=folder,
            env=_variables(line.columns, plugins),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # as in a terminal
            encoding="utf-8",
            timeout=120,
            check=False,
        )
    if done.returncode != line.status:
        raise TerminalError(
            f"`{line.text}` has the status {done.returncode}, not {line.status}, and prints:\n"
            f"{done.stdout}"
        )
    return done.stdout


def _variables(columns: int, plugins: Path) -> dict[str, str]:
    """Return the variables of a process whose output has colours, as in a terminal."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MADCROW_EVENTS_", "COV", "NO_COLOR"))
    }
    path = filter(None, (str(plugins), os.environ.get("PYTHONPATH")))
    return {
        **inherited,
        "COLUMNS": str(columns),
        "FORCE_COLOR": "1",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONPATH": os.pathsep.join(path),
        "TERM": "xterm-256color",
    }


def install(folder: Path) -> None:
    """Install two plugins in a folder: one that loads, and one that lacks what it requires."""
    for name, requires in (("greeter", ""), ("alerts", "Requires-Dist: acme-mailer\n")):
        described = folder / f"acme_{name}-1.0.dist-info"
        described.mkdir(parents=True)
        metadata = f"Metadata-Version: 2.1\nName: acme-{name}\nVersion: 1.0\n{requires}"
        (described / "METADATA").write_text(metadata, encoding="utf-8")
        entry_points = f"[madcrow_events.handlers]\n{name} = acme_{name}:group\n"
        (described / "entry_points.txt").write_text(entry_points, encoding="utf-8")
    (folder / "acme_greeter.py").write_text(GREETER, encoding="utf-8")


def figure(line: str, number: int, printed: dict[str, str]) -> str:
    """Return what a line prints as pictures, of which one is seen, and as hidden text.

    Args:
        line: the line.
        number: which picture of the page it is.
        printed: what the line prints, by the name of the width.
    """
    pictures = "".join(
        picture(text, WIDTHS[width], f"terminal-{number}-{width}").replace(
            "<svg ", f'<svg class="{width}" ', 1
        )
        for width, text in printed.items()
    )
    name = f"terminal-{number}"
    # On one line, which Markdown passes on as it is; the search looks into hidden text, too.
    lines = "&#10;".join(escape(it.rstrip()) for it in _plain(printed["wide"]).splitlines())
    return (
        f'<div class="terminal" role="img" aria-label="What {escape(line)} prints" '
        f'aria-describedby="{name}">{pictures}</div>'
        f'<div id="{name}" hidden><pre>{lines}</pre></div>'
    )


def _plain(printed: str) -> str:
    from rich.text import Text

    return Text.from_ansi(printed).plain


def picture(printed: str, columns: int, name: str) -> str:
    """Return what was printed as an SVG whose colours are those of the site.

    Args:
        printed: the text, with escape codes.
        columns: how wide the terminal is.
        name: what the classes of the SVG begin with.

    Raises:
        TerminalError: the text has a colour that the site does not have.
    """
    from rich.console import Console
    from rich.terminal_theme import TerminalTheme
    from rich.text import Text

    # Each colour stands for its place in _COLOURS, and is replaced by a variable of the site.
    ink, *normal = ((it, it, it) for it in range(len(_COLOURS)))
    theme = TerminalTheme((255, 255, 255), ink, normal)
    console = Console(
        record=True, width=columns, file=StringIO(), color_system="truecolor", no_color=False
    )
    rows = 0
    for line in Text.from_ansi(printed.rstrip()).split(allow_blank=True):
        line.rstrip()
        # As a terminal does, it breaks a line that is too long wherever that is.
        for part in line.divide(range(columns, len(line), columns)):
            console.print(part, no_wrap=True, highlight=False)
            rows += 1
    size = f"{columns * _COLUMN + 2 * _MARGIN:g} {rows * _ROW + 2 * _MARGIN:g}"
    layout = (
        f'<svg viewBox="{-_MARGIN} {-_MARGIN} {size}" aria-hidden="true" data-search-exclude="">'
        "<style>{styles}</style>{backgrounds}{matrix}</svg>"
    )
    drawn = console.export_svg(theme=theme, code_format=layout, unique_id=name)
    # Without what no reader sees: the ends of lines as text, and where a line would be cut off.
    flat = re.sub(r'<text [^>]*>\n</text>| clip-path="[^"]*"|\n', "", drawn)
    return re.sub(r"fill(: |=\")#(\w{6})", _with_variable, flat)


def _with_variable(fill: re.Match[str]) -> str:
    """Return a `fill` with the variable of the site in place of the colour."""
    red, green, blue = bytes.fromhex(fill[2])
    if not red == green == blue:
        raise TerminalError(f"the command prints in a colour that the site lacks: #{fill[2]}")
    # What is dim is mixed with the white of the background, and so is beyond the others.
    colour = _COLOURS[red] if red < len(_COLOURS) else "ground" if red == 255 else "dim"  # noqa: PLR2004
    return f"fill{fill[1]}var(--terminal-{colour})"
