"""A wing of the package, which is a folder or a file of it, keeps what is private to itself."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

import madcrow_events

pytestmark = pytest.mark.once

READ: dict[tuple[str, str], str] = {
    ("dispatcher/_dispatcher.py", "_registry"): "read by each emission; a call would cost it 1 %",
    ("emissions/_contexts.py", "_keywords"): "called for each typed emission; the same",
}
"""In which file which private name of another wing is read, and why."""


class Reach(NamedTuple):
    """Where a wing uses a private name of another one."""

    file: str
    name: str
    is_write: bool


def reaches(sources: Mapping[str, str]) -> Iterator[Reach]:
    """Yield the uses of private names in other wings than have them.

    What no file has, such as `_replace` of named tuples, is somebody else's to keep private. A
    name that the wing itself has, too, is taken for its own.

    Args:
        sources: the texts of a package's files, by their paths in it.
    """
    trees = {file: ast.parse(source) for file, source in sources.items()}
    owners: dict[str, set[str]] = defaultdict(set)
    for file, tree in trees.items():
        for name in names_of(tree):
            owners[name].add(wing_of(file))
    for file, tree in trees.items():
        for name, is_write in uses(tree):
            if owners[name] and wing_of(file) not in owners[name]:
                yield Reach(file, name, is_write)


def wing_of(file: str) -> str:
    return file.partition("/")[0].removesuffix(".py")


def names_of(tree: ast.Module) -> Iterator[str]:
    """Yield what a file defines, and what its classes keep."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.ClassDef(name=name):
                yield name
            case ast.Attribute(ast.Name("self" | "cls"), name, ast.Store()):
                yield name
            case ast.AnnAssign(ast.Name(name)):
                yield name
            case ast.Assign([ast.Name("__slots__")], slots):
                yield from (it.value for it in ast.walk(slots) if isinstance(it, ast.Constant))


def uses(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Yield each private name that a file uses of an object, and whether it is written."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(ast.Name("self" | "cls")):
                continue
            case ast.Attribute(_, name, context):
                is_write = not isinstance(context, ast.Load)
            case ast.Call(
                ast.Name(function) | ast.Attribute(_, function),
                [_, ast.Constant(str(name)), *_],
            ) if function.strip("_") in ("getattr", "hasattr", "setattr", "delattr"):
                is_write = function.strip("_") in ("setattr", "delattr")
            case _:
                continue
        if name.startswith("_") and not name.startswith("__"):
            yield name, is_write


OTHER = {"one.py": "class One:\n  def __init__(self): self._own = 1"}


@pytest.mark.parametrize(
    ("source", "is_write"),
    [
        ("one._own", False),
        ("one.it._own.more", False),
        ("getattr(one, '_own')", False),
        ("getattr(one, '_own', None)", False),
        ("hasattr(one, '_own')", False),
        ("one._own = 2", True),
        ("one._own += 2", True),
        ("del one._own", True),
        ("setattr(one, '_own', 2)", True),
        ("object.__setattr__(one, '_own', 2)", True),
        ("delattr(one, '_own')", True),
    ],
)
def test_who_uses_a_private_name_of_another_wing_is_found(source: str, *, is_write: bool) -> None:
    assert [*reaches({**OTHER, "two/_room.py": source})] == [
        Reach("two/_room.py", "_own", is_write)
    ]


@pytest.mark.parametrize(
    "owner",
    [
        "class One:\n  _own: int",
        "class One:\n  __slots__ = ('_own', 'other')",
        "class One:\n  def _own(self): ...",
        "async def _own(): ...",
        "class _own: ...",
        "class One:\n  @classmethod\n  def note(cls): cls._own = 1",
    ],
)
def test_a_wing_has_what_it_defines_and_what_its_classes_keep(owner: str) -> None:
    assert [*reaches({"one/_room.py": owner, "two.py": "it._own"})]
    assert not [*reaches({"one/_room.py": owner, "one/__init__.py": "it._own"})]


@pytest.mark.parametrize("source", ["it.own", "it.__class__", "self._own", "it._replace(own=2)"])
def test_whatever_else_a_wing_uses_is_no_reach(source: str) -> None:
    assert not [*reaches({**OTHER, "two.py": source})]


@pytest.fixture(scope="module")
def found() -> list[Reach]:
    package = Path(madcrow_events.__file__).parent
    return [
        *reaches(
            {
                path.relative_to(package).as_posix(): path.read_text(encoding="utf-8")
                for path in sorted(package.rglob("*.py"))
            }
        )
    ]


def test_no_wing_writes_what_is_private_to_another(found: list[Reach]) -> None:
    assert [it for it in found if it.is_write] == []


def test_a_wing_reads_what_is_private_to_another_only_where_a_reason_is_given(
    found: list[Reach],
) -> None:
    read = {it[:2] for it in found if not it.is_write}

    assert read - READ.keys() == set()
    assert READ.keys() - read == set(), "take these out of the list"
    assert all(READ.values())
