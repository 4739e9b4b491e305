"""Write the tables of the command's JSON and of its statuses, as the documentation is built.

They are made from the source of the command, so that the page cannot say anything else.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import madcrow_events

FIELDS = re.compile(r"^<!-- fields: (\w+) -->$", re.MULTILINE)
"""Where the table of a record's fields belongs, on a page."""

STATUSES = "<!-- exit statuses -->"
"""Where the table of the exit statuses belongs, on a page."""

_PACKAGE = Path(madcrow_events.__file__).parent
_TYPES = {
    "Any": "any value",
    "bool": "boolean",
    "float": "number",
    "int": "integer",
    "str": "string",
    # These are names of strings.
    "CallMode": "string",
    "FindingKind": "string",
    "LeftOutReason": "string",
    "PluginStatus": "string",
}


class CommandError(Exception):
    """A table cannot be made; the message says what to mend."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers by the tables; mkdocs calls this for each page."""
    try:
        return with_tables(markdown)
    except CommandError as error:
        from mkdocs.exceptions import PluginError  # the tests have no mkdocs

        raise PluginError(f"the tables of the command cannot be made: {error}") from error


def with_tables(markdown: str) -> str:
    """Return a page with the tables in place of the markers.

    Raises:
        CommandError: a record is not there, or says nothing of a field.
    """
    markdown = FIELDS.sub(lambda it: fields_of(it[1]), markdown)
    return markdown.replace(STATUSES, statuses()) if STATUSES in markdown else markdown


def statuses() -> str:
    """Return a table of the exit statuses."""
    tree = _tree_of(_PACKAGE / "cli" / "_errors.py")
    values = {
        _name_of(it): it.value.value
        for it in tree.body
        if isinstance(it, ast.AnnAssign) and isinstance(it.value, ast.Constant)
    }
    meanings = {
        values[_name_of(it)]: text.removeprefix("The status ").removesuffix(".")
        for it, text in _documented(tree)
    }
    rows = {0: "if all is well", **meanings}
    return _table("status", "when", rows=((str(it), text) for it, text in sorted(rows.items())))


def fields_of(record: str) -> str:
    """Return a table of the fields of a record, as JSON has them.

    Args:
        record: the name of the class.

    Raises:
        CommandError: there is no such class, or it says nothing of a field.
    """
    if record not in records():
        raise CommandError(f"no record is called {record}: it is none of {sorted(records())}")
    class_ = records()[record]
    meanings = {_name_of(it): text for it, text in _documented(class_)} or _attributes_of(class_)
    rows = []
    for it in class_.body:
        if isinstance(it, ast.AnnAssign):
            name = _name_of(it)
            if name not in meanings:
                raise CommandError(f"{record} says nothing of its field {name}")
            rows.append((f"`{name}`", _type(it.annotation), meanings[name]))
    # The mark before the table lets the site set it closely: there are many of them.
    return f'<div class="fields"></div>\n\n{_table("field", "type", "meaning", rows=rows)}'


@cache
def records() -> dict[str, ast.ClassDef]:
    """Return the classes that the JSON of the command is made of, by name."""
    files = [*(_PACKAGE / "cli").rglob("*.py"), _PACKAGE / "signals" / "_explaining.py"]
    return {
        it.name: it
        for file in sorted(files)
        for it in _tree_of(file).body
        if isinstance(it, ast.ClassDef) and _is_shown(it, file)
    }


def _is_shown(class_: ast.ClassDef, file: Path) -> bool:
    """Whether a class is the shape of JSON; of the named tuples, only explanations are."""
    bases = {ast.unparse(it) for it in class_.bases}
    is_explained = file.stem == "_explaining" and class_.name.endswith("Handler")
    return "TypedDict" in bases or ("NamedTuple" in bases and is_explained)


def _tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _name_of(assignment: ast.AnnAssign) -> str:
    return ast.unparse(assignment.target)


def _documented(tree: ast.Module | ast.ClassDef) -> Iterator[tuple[ast.AnnAssign, str]]:
    """Yield each annotated name with the text below it, on one line."""
    for it, below in pairwise(tree.body):
        if isinstance(it, ast.AnnAssign) and isinstance(below, ast.Expr):
            yield it, _in_json(ast.literal_eval(below.value))


def _attributes_of(class_: ast.ClassDef) -> dict[str, str]:
    """Return what the docstring of a class says of its attributes."""
    listed = (ast.get_docstring(class_) or "").partition("\nAttributes:\n")[2]
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", listed, re.MULTILINE)
    return {name: _in_json(text[0].upper() + text[1:]) for name, text in found}


def _in_json(text: str) -> str:
    """Return a text on one line, about JSON, with links to what it names."""
    linked = re.sub(
        r"`(CallMode|CalledHandler|LeftOutHandler|LeftOutReason)`",
        r"[`\1`][madcrow_events.signals.\1]",
        " ".join(text.split()),
    )
    return re.sub(r"\bNone\b", "null", linked)


def _type(annotation: ast.expr) -> str:
    """Return the type of JSON that an annotation means."""
    match annotation:
        case ast.BinOp(left, ast.BitOr(), right):
            found = f"{_type(left)} or {_type(right)}"
        case ast.Subscript(ast.Name("list"), item):
            found = f"array of {_type(item)}s"
        case ast.Subscript(ast.Name("dict")):
            found = "object"
        case ast.Subscript(ast.Name("Literal"), ast.Tuple(values)):
            found = " or ".join(_type(it) for it in values)
        case ast.Constant(value):
            found = "null" if value is None else f"`{json.dumps(value)}`"
        case ast.Subscript(ast.Name("Literal"), value):
            found = _type(value)
        case ast.Name(name) if name in records():
            found = "object"
        case _:
            found = _TYPES.get(ast.unparse(annotation), "")
    if not found:
        raise CommandError(f"{ast.unparse(annotation)} has no name in JSON: add it to command.py")
    return found


def _table(*head: str, rows: Iterable[tuple[str, ...]]) -> str:
    lines = (head, ["---"] * len(head), *rows)
    return "".join(f"| {' | '.join(row)} |\n" for row in lines)
