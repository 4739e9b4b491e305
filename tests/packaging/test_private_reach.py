"""A wing of the package, which is a folder or a file of it, keeps what is private to itself."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

import madcrow_events

READ: dict[tuple[str, str], str] = {
    ("_background/admission.py", "_call_spec"): "to go",
    ("_background/admission.py", "_check_arguments"): "to go",
    ("_background/admission.py", "_deferrals"): "to go",
    ("_background/admission.py", "_inherited_fields"): "to go",
    ("_background/admission.py", "_is_claimed"): "to go",
    ("_background/admission.py", "_match"): "to go",
    ("_background/admission.py", "_plan"): "to go",
    ("_background/admission.py", "_table"): "to go",
    ("_background/admission.py", "_values"): "to go",
    ("_background/backlog.py", "_call_spec"): "to go",
    ("_background/batching.py", "_announce"): "to go",
    ("_background/batching.py", "_announce_async"): "to go",
    ("_background/batching.py", "_call_spec"): "to go",
    ("_background/batching.py", "_known_fields"): "to go",
    ("_background/batching.py", "_let_go"): "to go",
    ("_background/batching.py", "_outer"): "to go",
    ("_background/batching.py", "_values"): "to go",
    ("_background/job.py", "_announce"): "to go",
    ("_background/job.py", "_announce_async"): "to go",
    ("_background/job.py", "_call_spec"): "to go",
    ("_background/job.py", "_let_go"): "to go",
    ("_background/job.py", "_owner"): "to go",
    ("_background/job.py", "_values"): "to go",
    ("deferrals.py", "_emit_held"): "to go",
    ("deferrals.py", "_emit_held_async"): "to go",
    ("deferrals.py", "_plan"): "to go",
    ("deferrals.py", "_values"): "to go",
    ("deferrals.py", "_workers"): "to go",
    ("dispatcher.py", "_causing"): "to go",
    ("dispatcher.py", "_failures"): "to go",
    ("dispatcher.py", "_known_fields"): "to go",
    ("dispatcher.py", "_own_failures"): "to go",
    ("dispatcher.py", "_payload"): "to go",
    ("dispatcher.py", "_plan"): "to go",
    ("dispatcher.py", "_registry"): "to go",
    ("dispatcher.py", "_values"): "to go",
    ("emissions/_async_loop.py", "_admit"): "to go",
    ("emissions/_async_loop.py", "_call_spec"): "to go",
    ("emissions/_async_loop.py", "_models"): "to go",
    ("emissions/_blinker_loop.py", "_call_spec"): "to go",
    ("emissions/_blinker_loop.py", "_is_used_up"): "to go",
    ("emissions/_blinker_loop.py", "_match"): "to go",
    ("emissions/_blinker_loop.py", "_take"): "to go",
    ("emissions/_emission.py", "_holds"): "to go",
    ("emissions/_emission.py", "_replaces"): "to go",
    ("emissions/_emission.py", "_workers"): "to go",
    ("emissions/_failures.py", "_explained"): "to go",
    ("emissions/_loop.py", "_admit"): "to go",
    ("emissions/_loop.py", "_call"): "to go",
    ("emissions/_loop.py", "_call_spec"): "to go",
    ("emissions/_loop.py", "_filled"): "to go",
    ("emissions/_loop.py", "_hold"): "to go",
    ("emissions/_loop.py", "_models"): "to go",
    ("emissions/_loop.py", "_observers"): "to go",
    ("emissions/_loop.py", "_table"): "to go",
    ("emissions/_loop.py", "_workers"): "to go",
    ("emissions/_observing.py", "_observers"): "to go",
    ("emissions/_recording.py", "_owner"): "to go",
    ("subscriptions/_call_specs.py", "_context_as"): "to go",
    ("subscriptions/_call_specs.py", "_for_handler_of"): "to go",
    ("subscriptions/_call_specs.py", "_keywords"): "to go",
    ("subscriptions/_subscription.py", "_keywords"): "to go",
    ("subscriptions/_subscription.py", "_payload"): "to go",
    ("testing/recorder.py", "_keywords"): "to go",
}
"""In which file which private name of another wing is read, and why."""

WRITTEN: dict[tuple[str, str], str] = {
    ("_background/admission.py", "_deferrals"): "to go",
    ("_background/admission.py", "_fields"): "to go",
    ("_background/admission.py", "_outer"): "to go",
    ("_background/admission.py", "_running"): "to go",
    ("_background/admission.py", "_values"): "to go",
    ("_background/batching.py", "_fields"): "to go",
    ("_background/batching.py", "_outer"): "to go",
    ("deferrals.py", "_flushing"): "to go",
    ("deferrals.py", "_plan"): "to go",
    ("deferrals.py", "_values"): "to go",
    ("dispatcher.py", "_plan"): "to go",
}
"""The same for names that are written; a new one is never right."""


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
    written = {it[:2] for it in found if it.is_write}

    assert written - WRITTEN.keys() == set()
    assert WRITTEN.keys() - written == set(), "take these out of the list"


def test_a_wing_reads_what_is_private_to_another_only_where_a_reason_is_given(
    found: list[Reach],
) -> None:
    read = {it[:2] for it in found if not it.is_write}

    assert read - READ.keys() == set()
    assert READ.keys() - read == set(), "take these out of the list"
    assert all(READ.values())


@pytest.mark.parametrize("exceptions", [READ, WRITTEN])
def test_the_exceptions_stand_in_order(exceptions: dict[tuple[str, str], str]) -> None:
    assert [*exceptions] == sorted(exceptions)
