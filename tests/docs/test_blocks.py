"""Every Python block of a page or of a public docstring runs, and prints what is shown below it.

`support.fences` says what a fence may be.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import logging
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import madcrow_events
from madcrow_events import get_event_dispatcher, madcrow_signals, user_logged_in
from support.fences import Fence, fences_in

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LOGGERS = ["", "madcrow_events", *map("madcrow_events.{}".format, ("audit", "security", "system"))]
LOGGERS += ["shop", "stamina"]

each_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix()
)


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
        if "structlog" in sys.modules:
            sys.modules["structlog"].reset_defaults()
        if "stamina" in sys.modules:
            sys.modules["stamina"].instrumentation.set_on_retry_hooks(None)


def run(text: str, name: str) -> None:
    """Run the blocks of a page.

    Raises:
        AssertionError: a block printed something else than the page says.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = io.StringIO()
    start = 0
    with as_a_new_interpreter(), contextlib.redirect_stdout(printed):
        for fence in fences_in(text):
            if fence.is_output:
                shown = printed.getvalue()[start:]
                assert shown == fence.text, f"{name}:{fence.line} is not what the block prints"
            elif fence.runs:
                start = printed.tell()
                code = compile(fence.at_its_line(), name, "exec", dont_inherit=True)
                exec(code, namespace)  # noqa: S102  # running the page is the point


@each_page
def test_the_blocks_of_a_page_run_as_printed(page: Path) -> None:
    """A reader who copies the page, block by block, sees what the page shows."""
    run(page.read_text(encoding="utf-8"), str(page))


def docstrings() -> Iterator[tuple[str, str]]:
    """Yield the docstrings of the package that have a fence, with the names of their objects."""
    names = [it.name for it in pkgutil.walk_packages(madcrow_events.__path__, "madcrow_events.")]
    for name in ["madcrow_events", *names]:
        module = importlib.import_module(name)
        mine = [it for it in vars(module).values() if getattr(it, "__module__", None) == name]
        members = [member for it in mine if inspect.isclass(it) for member in vars(it).values()]
        for it in (module, *mine, *members):
            docstring = inspect.getdoc(it)
            if docstring and re.search(r"^ *(```|~~~)", docstring, re.MULTILINE):
                yield f"{name}.{getattr(it, '__qualname__', '')}", docstring


@pytest.mark.parametrize(
    ("name", "docstring"), [pytest.param(*it, id=it[0]) for it in docstrings()]
)
def test_the_example_of_a_docstring_runs_as_printed(name: str, docstring: str) -> None:
    run(docstring, name)


def lint(code: str, name: str, select: str) -> str:
    """Return what ruff finds."""
    linter = ["ruff", "check", "--isolated", "--no-cache", "--quiet", "--select", select]
    found = subprocess.run(
        [sys.executable, "-m", *linter, "--stdin-filename", name, "-"],
        input=code,
        capture_output=True,
        check=False,
        encoding="utf-8",
    )
    return found.stdout + found.stderr


@pytest.mark.once
@each_page
def test_the_blocks_of_a_page_are_free_of_errors(page: Path) -> None:
    """No block has a syntax error, an undefined name or a comparison that is always true."""
    fences = [fence for fence in fences_in(page.read_text(encoding="utf-8")) if fence.runs]
    lines = [""] * max([fence.line + fence.text.count("\n") for fence in fences], default=0)
    for fence in fences:
        code = fence.text.splitlines()
        lines[fence.line - 1 : fence.line - 1 + len(code)] = code
    assert lint("\n".join(lines), f"{page.stem}.py", "E9,F63,F7,F82") == ""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for fragments, in which the type checker keeps what it knows of packages."""
    return tmp_path_factory.mktemp("fragments")


@pytest.mark.once
@each_page
def test_the_fragments_of_a_page_fit_the_package(page: Path, folder: Path) -> None:
    """What cannot run has no undefined or unused name, and its types are those of the package."""
    for fence in fences_in(page.read_text(encoding="utf-8")):
        if fence.exception == "fragment":
            assert faults_of(fence, folder) == ""


def faults_of(fragment: Fence, folder: Path) -> str:
    """Return what the linter and the type checker find in a fragment."""
    file = folder / "fragment.py"
    file.write_text(fragment.at_its_line(), encoding="utf-8")
    checker = ["mypy", "--check-untyped-defs", "--ignore-missing-imports", "--no-error-summary"]
    checker += ["--disable-error-code=method-assign"]  # Flask and Quart say to do so
    checked = subprocess.run(
        [
            sys.executable,
            "-m",
            *checker,
            "--config-file=",
            f"--cache-dir={folder / 'known'}",
            str(file),
        ],
        capture_output=True,
        check=False,
        encoding="utf-8",
    )
    return lint(fragment.at_its_line(), file.name, "E9,F") + checked.stdout + checked.stderr


def test_blocks_of_one_page_share_a_namespace_in_order() -> None:
    """A later block uses what an earlier one defined."""
    run("```python\nx = 1\n```\n\nand\n\n```python\nprint(x)\n```\n```text\n1\n```\n", "page.md")


def test_output_that_differs_is_an_error() -> None:
    """What stands under a block is compared to the letter."""
    page = "text\n\n```python\nprint('a ')\n```\n\n```text\na\n```\n"
    with pytest.raises(AssertionError, match=r"page\.md:8 is not what the block prints"):
        run(page, "page.md")


BLOCK = "```python\nx = 1\n```\n"


@pytest.mark.parametrize(
    ("page", "message"),
    [
        *[(f"```{it}\nx\n```\n", "line 2") for it in ("py", "python3", "Python", "{.python}", "")],
        ("```python\nx = 1\n", "line 1: the fence is not closed"),
        ("```text\nanything\n```\n", "line 2: output stands directly under"),
        (f"{BLOCK}As a file:\n```text\nanything\n```\n", "line 6: output stands directly under"),
        (f"<!-- fragment: why -->\n{BLOCK}```text\nx\n```\n", "line 6: output stands directly"),
        (f"<!-- fragment -->\n{BLOCK}", "line 3: give the reason"),
        ("<!-- not run -->\n```console\n$ x\n```\n", "line 3: give the reason"),
        (f"<!-- not run: why -->\n{BLOCK}", "line 3: no fence of python is 'not run'"),
        ("<!-- fragment: why -->\n```console\n$ x\n```\n", "no fence of console is 'fragment'"),
        ("```toml\nx =\n```\n", "line 2: "),
        ("```json\n{x}\n```\n", "line 2: "),
        ("```ini\nx = 1\n```\n", "line 2: "),
    ],
)
def test_a_fence_that_could_lie_is_refused(page: str, message: str) -> None:
    """A language that nobody checks, output that no block prints, an exception without reason."""
    with pytest.raises(ValueError, match=re.escape(message)):
        fences_in(page)


def test_a_fragment_does_not_run() -> None:
    (fence,) = fences_in("<!-- fragment: needs a server -->\n\n```python\nraise SystemExit\n```\n")
    assert not fence.runs


@pytest.mark.once
@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("import os\n", "F401"),
        ("undefined\n", "F821"),
        ("from madcrow_events import emit_evnt\nemit_evnt()\n", "attr-defined"),
        ("from madcrow_events import event_scope\nevent_scope(request=1)\n", "call-arg"),
    ],
)
def test_a_fragment_with_a_fault_is_found(code: str, fault: str, folder: Path) -> None:
    assert fault in faults_of(Fence("python", 1, code), folder)


def test_a_fence_inside_a_fence_is_text() -> None:
    """Markdown that is shown as an example is not run; indented blocks are."""
    (outer,) = fences_in("````toml\n# ```python\n# boom\n# ```\n````\n")
    assert outer.language == "toml"
    assert fences_in("- item\n\n  ```python\n  if True:\n      x = 1\n  ```\n") == [
        Fence("python", 4, "if True:\n    x = 1\n")
    ]


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


def test_a_page_leaves_the_packages_that_it_uses_as_they_were() -> None:
    """Settings of structlog and stamina are those of the process."""
    structlog, stamina = map(pytest.importorskip, ("structlog", "stamina"))
    hook = "stamina.instrumentation.set_on_retry_hooks([print])"
    run(f"```python\nimport stamina, structlog\nstructlog.configure()\n{hook}\n```\n", "page.md")
    assert not structlog.is_configured()
    assert print not in stamina.instrumentation.get_on_retry_hooks()
