"""The commands of a page run, and print what the page shows, in an empty folder.

A fence with a title is a file of that name; in a `console` fence a line after
`$` is a command, and the lines below it are what it prints, unless there are
none. An environment of its own has what the test's has, and what the page
installs; nothing is downloaded.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.fences import Fence, fences_in

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLLOWED = [
    page
    for page in PAGES
    if re.search(r"^```console| title=", page.read_text("utf-8"), re.MULTILINE)
]

NEEDS = {"fastapi": ("fastapi", "httpx", "uvicorn"), "flask": ("flask",)}
"""What else is installed by who follows a page."""


@pytest.fixture
def variables(scripts: Path) -> dict[str, str]:
    """Return the variables of a shell in the environment."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("COV", "PYTEST", "PIP"))}
    return {
        **inherited,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # which is how pip spells that it does not isolate
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "MADCROW_EVENTS": str(ROOT),  # where the reader's clone is
    }


@pytest.mark.once
@pytest.mark.skipif(sys.platform == "win32", reason="the pages are for a POSIX shell")
@pytest.mark.parametrize("page", FOLLOWED, ids=lambda page: page.stem)
def test_a_reader_who_follows_the_page_sees_what_it_shows(
    page: Path, tmp_path: Path, variables: dict[str, str]
) -> None:
    for needed in NEEDS.get(page.stem, ()):
        pytest.importorskip(needed)
    folder = tmp_path / "empty"
    folder.mkdir()
    for fence in fences_in(page.read_text(encoding="utf-8")):
        if fence.title:
            path = folder / fence.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(fence.text, encoding="utf-8")
        elif fence.language == "console" and fence.exception != "not run":
            if fence.exception == "in a clone" and not (ROOT / "src").exists():
                continue  # the wheel is tested, away from the clone
            follow(fence, folder if fence.exception is None else ROOT, variables)


def follow(fence: Fence, folder: Path, variables: dict[str, str]) -> None:
    """Run the commands of a fence.

    Raises:
        AssertionError: one of them failed, or printed something else than the page says.
    """
    commands = re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", fence.text, re.MULTILINE)
    assert commands, f"line {fence.line}: begin each command with $"
    for command, shown in commands:
        done = subprocess.run(
            ["sh", "-c", command],  # noqa: S607  # the reader's shell
            cwd=folder,
            env=variables,
            capture_output=True,
            check=False,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert shown in ("", done.stdout), command


@pytest.mark.parametrize(
    ("fence", "message"),
    [
        ("pip install\n", "line 1: begin each command"),
        ("$ false\n", "false"),
        ("$ echo one\ntwo\n", "echo one"),
    ],
)
def test_a_command_that_fails_or_prints_something_else_is_an_error(
    fence: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=message):
        follow(Fence("console", 1, fence), tmp_path, dict(os.environ))
