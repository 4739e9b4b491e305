"""Pages that build something are followed word for word, in an empty folder.

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
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)

FOLLOWED = [page for page in sorted(DOCS.rglob("*.md")) if ' title="' in page.read_text("utf-8")]

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
    files = commands = 0
    for language, title, text in _FENCE.findall(page.read_text(encoding="utf-8")):
        if title:
            path = folder / title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text), encoding="utf-8")
            files += 1
        elif language == "console":
            for command, shown in re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
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
                commands += 1
    assert files
    assert commands


def test_there_are_pages_to_follow() -> None:
    assert [page.stem for page in FOLLOWED] == ["plugins", "testing", "fastapi", "flask"]
