"""The fences of a page or a docstring, and what they must be so that none of them can lie.

    python             runs, after those above it, in one namespace
    text               directly under such a block: what the block prints, to the letter
    python title="x"   a file, of a page that tests/docs/test_followed.py follows
    console            a shell: a line after `$` is a command, the lines below it are its output
    toml, json, ini    is well-formed

A comment on the line above a fence may make an exception, and says why:

    <!-- fragment: needs a server -->     the Python is linted and type-checked, alone
    <!-- not run: takes an hour -->       these commands are not run
    <!-- in a clone -->                   these commands run in a clone of the project
"""

from __future__ import annotations

import configparser
import json
import re
import textwrap
import tomllib
from collections.abc import Iterator
from typing import NamedTuple

LANGUAGES = {"python", "text", "console", "toml", "json", "ini"}

_OPENING = re.compile(r"(?P<indent> *)(?P<marks>`{3,}|~{3,})(?P<info>.*)")
_COMMENT = re.compile(r"<!-- (fragment|not run|in a clone)(?:: (\S.*))? -->")


class Fence(NamedTuple):
    """A fence, and what stands above it."""

    language: str
    line: int  # of the first line in it
    text: str
    title: str | None = None
    exception: str | None = None  # fragment, not run or in a clone
    is_output: bool = False

    @property
    def runs(self) -> bool:
        """Whether it is Python that runs in the namespace of its page."""
        return self.language == "python" and not self.title and not self.exception

    def at_its_line(self) -> str:
        """Return the text moved down to its line on the page, so that errors name that line."""
        return "\n" * (self.line - 1) + self.text


def fences_in(page: str) -> list[Fence]:
    """Return the fences of a page; one inside another is text of the outer one.

    Raises:
        ValueError: a fence could lie, or is not closed; the message names its line.
    """
    fences: list[Fence] = []
    for info, line, text, above in _fences(page):
        language = info.split()[0] if info.strip() else ""
        titled = re.search(r' title="([^"]+)"', info)
        if language not in LANGUAGES:
            raise ValueError(f"line {line}: '{language}' is none of {sorted(LANGUAGES)}")
        is_output = language == "text"
        if is_output and not (above is None and fences and fences[-1].runs):
            raise ValueError(f"line {line}: output stands directly under the block that prints it")
        comment = _COMMENT.fullmatch(above or "")
        exception = comment[1] if comment else None
        if comment and (exception == "in a clone") is bool(comment[2]):
            raise ValueError(f"line {line}: give the reason, as in <!-- not run: takes an hour -->")
        if exception and (exception == "fragment") is not (language == "python"):
            raise ValueError(f"line {line}: no fence of {language} is '{exception}'")
        title = titled[1] if titled else None
        fence = Fence(language, line, text, title, exception, is_output)
        _parse(fence)
        fences.append(fence)
    return fences


def _fences(page: str) -> Iterator[tuple[str, int, str, str | None]]:
    """Yield what opens a fence, where its text begins, the text, and the line above the fence.

    That line is None if the fence is directly under another one.
    """
    lines = enumerate(page.splitlines(), start=1)
    above: str | None = ""
    for number, line in lines:
        opening = _OPENING.fullmatch(line)
        if opening is None:
            above = line.strip() or above
            continue
        body: list[str] = []
        for _, inner in lines:
            if inner.strip().startswith(opening["marks"]) and not inner.strip(" `~"):
                break
            body.append(inner)
        else:
            raise ValueError(f"line {number}: the fence is not closed")
        yield opening["info"], number + 1, textwrap.dedent("".join(f"{it}\n" for it in body)), above
        above = None


def _parse(fence: Fence) -> None:
    parsers = {
        "toml": tomllib.loads,
        "json": json.loads,
        "ini": configparser.ConfigParser().read_string,
    }
    try:
        parsers.get(fence.language, str)(fence.text)
    except (ValueError, configparser.Error) as error:
        raise ValueError(f"line {fence.line}: {error}") from error
