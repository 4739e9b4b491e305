"""Promises and tests name each other.

Every promise of the pages in `docs/reference/guarantees` has an id in its
heading and is named by at least one `@pytest.mark.guarantee("ID")`; every id
that a test names is a promise. The sources are read, not imported: nothing is
missed because a test was skipped or deselected.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "reference" / "guarantees"

_FENCE = re.compile(r"^ *(`{3,}|~{3,}).*?^ *\1", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} +([A-Z][0-9]+)\b(?:.*\{ #(\S+) \})?", re.MULTILINE)


def promises_of(page: str) -> list[tuple[str, str]]:
    """Return the ids of a page's headings, in order, each with its anchor or an empty text."""
    return _HEADING.findall(_FENCE.sub("", page))


def promises() -> list[tuple[str, str]]:
    """Return the promises of all pages."""
    pages = [page.read_text(encoding="utf-8") for page in sorted(PAGES.rglob("*.md"))]
    return [promise for page in pages for promise in promises_of(page)]


def ids_named_by_tests(folder: Path) -> dict[str, list[str]]:
    """Return the ids that the tests of a folder name, each with where it is named.

    Decorators, `pytestmark` and the marks of `pytest.param` all count.

    Raises:
        ValueError: a mark names no id, or one that cannot be read from the source.
    """
    named: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if "guarantee" not in source:
            continue
        tree = ast.parse(source, str(path))
        nodes = list(ast.walk(tree))
        called = {id(node.func): node for node in nodes if isinstance(node, ast.Call)}
        for node in nodes:
            if not _is_guarantee(node):
                continue
            where = f"{path.relative_to(folder).as_posix()}:{node.lineno}"
            arguments = called[id(node)].args if id(node) in called else []
            ids = [
                argument.value
                for argument in arguments
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
            ]
            if not ids or len(ids) != len(arguments):
                raise ValueError(f"{where}: name the promise, as in guarantee('N1')")
            for name in ids:
                named.setdefault(name, []).append(where)
    return named


def _is_guarantee(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and node.attr == "guarantee"
        and ast.unparse(node) == "pytest.mark.guarantee"
    )


def test_every_promise_is_named_by_a_test_and_every_id_that_a_test_names_is_a_promise() -> None:
    """Nothing is promised that no test shows; what is shown beyond points at a gap in the pages."""
    promised = {name for name, _ in promises()}
    named = ids_named_by_tests(ROOT / "tests")
    assert promised
    assert promised - named.keys() == set()
    assert {name: where for name, where in named.items() if name not in promised} == {}


def test_each_promise_stands_once_under_its_own_anchor() -> None:
    """An id means one thing, and a link to it lasts when the words of the heading change."""
    found = promises()
    assert [name for name, count in Counter(name for name, _ in found).items() if count > 1] == []
    assert [name for name, anchor in found if anchor != name.lower()] == []


def test_the_index_names_each_promise() -> None:
    """And no other."""
    index = (PAGES / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\b[A-Z][0-9]+\b", index)) == {name for name, _ in promises()}


def test_headings_with_an_id_are_promises() -> None:
    """Other headings, text, and comments inside of code are not."""
    page = (
        "# Names\n\n## N1 - One { #n1 }\n\nN7 is none.\n\n## Table H: shapes { #table-h }\n\n"
        "```python\n# F9 - a comment\n```\n\n### E12 - Two\n\n"
        "~~~text\n### G3 - shown, not said\n~~~\n\n## N1 - Again { #again }\n"
    )
    assert promises_of(page) == [("N1", "n1"), ("E12", ""), ("N1", "again")]


def test_marks_are_found_wherever_they_stand(tmp_path: Path) -> None:
    """On a function, a class, a module, a parameter; in folders below, too."""
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "test_a.py").write_text(
        "import pytest\n"
        "pytestmark = [pytest.mark.guarantee('N1')]\n"
        "@pytest.mark.guarantee('C2', 'C3')\n"
        "class TestIt:\n"
        "    @pytest.mark.skip\n"
        "    @pytest.mark.guarantee('E1')\n"
        "    async def test_x(self): ...\n"
        "    @pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.guarantee('F1'))])\n"
        "    def test_y(self, x): ...\n"
        "text = \"pytest.mark.guarantee('Z9')\"  # pytest.mark.guarantee('Z8')\n"
    )
    (tmp_path / "test_b.py").write_text(
        "import pytest\n@pytest.mark.guarantee('N1')\ndef test_z(): ...\n"
    )
    assert ids_named_by_tests(tmp_path) == {
        "N1": ["deeper/test_a.py:2", "test_b.py:2"],
        "C2": ["deeper/test_a.py:3"],
        "C3": ["deeper/test_a.py:3"],
        "E1": ["deeper/test_a.py:6"],
        "F1": ["deeper/test_a.py:8"],
    }


@pytest.mark.parametrize("arguments", ["", "()", "(NAME)", "(1)", "('N1', NAME)"])
def test_a_mark_that_names_nothing_is_an_error(tmp_path: Path, arguments: str) -> None:
    """It would count for nothing, in silence."""
    source = f"import pytest\n@pytest.mark.guarantee{arguments}\ndef test_x(): ...\n"
    (tmp_path / "test_a.py").write_text(source)
    with pytest.raises(ValueError, match=r"test_a\.py:2: name the promise"):
        ids_named_by_tests(tmp_path)
