"""Every Python block of the documentation runs as printed.

The blocks of one page run in order in one namespace, as a reader would type
them into one interpreter. A `text` or `console` fence right after a block is
what the block prints, to the letter. A block that cannot be run says so, and
why, in a comment on the line above its fence::

    <!-- not run: needs a server -->
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from madcrow_events import get_event_dispatcher, madcrow_signals, user_logged_in

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LOGGERS = ["", "madcrow_events", *map("madcrow_events.{}".format, ("audit", "security", "system"))]
LANGUAGES = {"python", "text", "console", "toml", "yaml", ""}

_OPENING = re.compile(r"(?P<indent> *)(?P<marks>`{3,}|~{3,})(?P<info>.*)")
_NOT_RUN = re.compile(r"<!-- not run: \S.* -->")


class Block(NamedTuple):
    """A Python block: where its code starts, the code, and what it prints if the page says so."""

    line: int
    code: str
    output: str | None


class Fence(NamedTuple):
    """A fence of any language, and the last line with text above it, if no fence is between."""

    language: str
    line: int
    text: str
    above: str | None
    is_file: bool  # it has a title


def fences_in(text: str) -> Iterator[Fence]:
    """Yield the fences of a page; one inside another is text of the outer one.

    Raises:
        ValueError: a fence is not closed.
    """
    lines = enumerate(text.splitlines(), start=1)
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
            raise ValueError(f"the fence of line {number} is not closed")
        language = opening["info"].split()[0] if opening["info"].strip() else ""
        code = "".join(f"{inner}\n" for inner in body)
        is_file = " title=" in opening["info"]
        yield Fence(language, number + 1, textwrap.dedent(code), above, is_file)
        above = None


def blocks_in(text: str) -> list[Block]:
    """Return the Python blocks of a page that are to be run.

    Raises:
        ValueError: a fence is not closed, or of a language that this test does not know.
    """
    blocks: list[Block] = []
    previous_ran = False
    for fence in fences_in(text):
        if fence.language not in LANGUAGES:
            raise ValueError(f"line {fence.line}: '{fence.language}' is none of {LANGUAGES}")
        if fence.language == "python":
            # A file is of a page that test_followed.py follows.
            previous_ran = not (fence.is_file or _NOT_RUN.fullmatch(fence.above or ""))
            if previous_ran:
                blocks.append(Block(fence.line, fence.text, None))
            continue
        if previous_ran and fence.above is None and fence.language in {"text", "console"}:
            blocks[-1] = blocks[-1]._replace(output=fence.text)
        previous_ran = False
    return blocks


def at_its_line(block: Block) -> str:
    """Return the code moved down to its line on the page, so that errors name that line."""
    return "\n" * (block.line - 1) + block.code


@contextlib.contextmanager
def as_a_new_interpreter() -> Iterator[None]:
    """Undo what a page does to the events and to logging, and let it begin without either."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(log, log.handlers[:], log.filters[:], log.level, log.propagate) for log in loggers]
    for log in loggers:
        log.handlers[:] = []
    try:
        with madcrow_signals.isolated(empty=True):
            yield
    finally:
        for log, handlers, filters, level, propagate in before:
            log.handlers[:] = handlers
            log.filters[:] = filters
            log.setLevel(level)
            log.propagate = propagate


def run(text: str, name: str) -> None:
    """Run the blocks of a page.

    Raises:
        AssertionError: a block printed something else than the page says.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = io.StringIO()
    with as_a_new_interpreter(), contextlib.redirect_stdout(printed):
        for block in blocks_in(text):
            start = printed.tell()
            code = compile(at_its_line(block), name, "exec", dont_inherit=True)
            exec(code, namespace)  # noqa: S102  # running the page is the point
            shown = printed.getvalue()[start:]
            if block.output is not None:
                assert shown == block.output, f"{name}:{block.line} prints something else"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_blocks_of_a_page_run_as_printed(page: Path) -> None:
    """A reader who copies the page, block by block, sees what the page shows."""
    run(page.read_text(encoding="utf-8"), str(page))


@pytest.mark.once
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_blocks_of_a_page_are_free_of_errors(page: Path) -> None:
    """No block has a syntax error, an undefined name or a comparison that is always true."""
    blocks = blocks_in(page.read_text(encoding="utf-8"))
    lines = [""] * max([block.line + block.code.count("\n") for block in blocks], default=0)
    for block in blocks:
        code = block.code.splitlines()
        lines[block.line - 1 : block.line - 1 + len(code)] = code
    linter = ["ruff", "check", "--isolated", "--no-cache", "--select", "E9,F63,F7,F82"]
    found = subprocess.run(
        [sys.executable, "-m", *linter, "--stdin-filename", f"{page.stem}.py", "-"],
        input="\n".join(lines),
        capture_output=True,
        check=False,
        encoding="utf-8",
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_there_are_pages_to_check() -> None:
    """The collection finds the documentation, so that the tests above check something."""
    assert sum(len(blocks_in(page.read_text(encoding="utf-8"))) for page in PAGES) > 0


def test_blocks_of_one_page_share_a_namespace_in_order() -> None:
    """A later block uses what an earlier one defined."""
    run("```python\nx = 1\n```\n\nand\n\n```python\nprint(x)\n```\n```text\n1\n```\n", "page.md")


def test_output_that_differs_is_an_error() -> None:
    """What stands under a block is compared to the letter."""
    page = "text\n\n```python\nprint('a ')\n```\n\n```console\na\n```\n"
    with pytest.raises(AssertionError, match=r"page\.md:4 prints something else"):
        run(page, "page.md")


def test_output_is_what_directly_follows_a_block() -> None:
    """A text fence after a sentence is an illustration, not the output."""
    (block,) = blocks_in("```python\nx = 1\n```\nAs a file:\n```text\nanything\n```\n")
    assert block.output is None


def test_a_block_that_is_not_run_has_a_reason() -> None:
    """The comment above a fence leaves the block out, but only with a reason."""
    block = "```python\nraise SystemExit\n```\n```text\nx\n```\n"
    assert blocks_in(f"<!-- not run: needs a server -->\n\n{block}") == []
    assert len(blocks_in(f"<!-- not run: -->\n{block}")) == 1


def test_a_fence_inside_a_fence_is_text() -> None:
    """Markdown that is shown as an example is not run; indented blocks are."""
    assert blocks_in("````text\n```python\nboom\n```\n````\n") == []
    assert blocks_in("- item\n\n  ```python\n  if True:\n      x = 1\n  ```\n") == [
        Block(4, "if True:\n    x = 1\n", None)
    ]


@pytest.mark.parametrize("language", ["py", "python3", "pycon", "Python", "{.python}"])
def test_no_block_escapes_by_another_name(language: str) -> None:
    """A fence of an unknown language is refused, for it may be Python that nobody runs."""
    with pytest.raises(ValueError, match="line 2"):
        blocks_in(f"```{language}\nx\n```\n")


def test_a_fence_that_is_never_closed_is_an_error() -> None:
    """Else the rest of the page would silently count as text."""
    with pytest.raises(ValueError, match="fence of line 1"):
        blocks_in("```python\nx = 1\n")


def test_errors_name_the_line_of_the_page() -> None:
    """A traceback leads to the page."""
    with pytest.raises(ZeroDivisionError) as caught:
        run("# Page\n\n```python\nx = 1\n1 / 0\n```\n", "page.md")
    assert caught.traceback[-1].lineno + 1 == 5


def test_a_page_leaves_nothing_behind() -> None:
    """Events, handlers, the dispatcher and logging are as they were."""
    log = logging.getLogger("madcrow_events")
    root_handlers, dispatcher = logging.getLogger().handlers[:], get_event_dispatcher()
    code = """
import logging
import madcrow_events as events

logging.basicConfig(level=logging.DEBUG)
logging.getLogger("madcrow_events").setLevel(logging.DEBUG)
events.madcrow_signals.signal("left_behind")
events.on_event("user_logged_in")(lambda: None)
events.set_event_dispatcher(events.EventDispatcher(on_error="raise"))
"""
    run(f"```python{code}```\n", "page.md")
    assert "left_behind" not in madcrow_signals
    assert user_logged_in.subscriptions == ()
    assert get_event_dispatcher() is dispatcher
    assert logging.getLogger().handlers == root_handlers
    assert log.level == logging.NOTSET
