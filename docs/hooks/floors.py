"""Draw the floors of the package from its import contracts, as the documentation is built.

The contracts of import-linter in pyproject.toml say which module may import which. Their picture
is made of them, so that it cannot say anything else.
"""

from __future__ import annotations

import ast
import re
import tomllib
from html import escape
from pathlib import Path
from typing import Any

MARKER = "<!-- floors -->"
"""What the picture takes the place of, on a page."""

_ROOT = Path(__file__).parents[2]
_PACKAGE = _ROOT / "src" / "madcrow_events"

Contracts = dict[str, list[list[str]]]
"""By the dotted name of a package, its floors from the top to the ground, each a list of rooms."""


class FloorsError(Exception):
    """The picture cannot be drawn; the message says what to mend."""


def on_page_content(html: str, **_: Any) -> str:
    """Replace the marker by the picture; mkdocs calls this for each page."""
    if MARKER not in html:
        return html
    try:
        return html.replace(MARKER, picture(contracts(_ROOT / "pyproject.toml"), _PACKAGE))
    except FloorsError as error:
        from mkdocs.exceptions import PluginError  # the tests have no mkdocs

        raise PluginError(f"the floors cannot be drawn: {error}") from error


def contracts(file: Path) -> Contracts:
    """Return the floors that the exhaustive contracts of a pyproject.toml name.

    Raises:
        FloorsError: the file cannot be read, or has no such contract.
    """
    try:
        linter = tomllib.loads(file.read_text(encoding="utf-8"))["tool"]["importlinter"]
        found = {
            container: [[room.strip() for room in layer.split("|")] for layer in one["layers"]]
            for one in linter["contracts"]
            if one["type"] == "layers" and one.get("exhaustive")
            for container in one["containers"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FloorsError(
            f"{file.name} has no contracts that can be read ({error!r}): each of [[tool."
            "importlinter.contracts]] needs a type, and one of layers its containers and layers"
        ) from error
    if not found:
        raise FloorsError(f"{file.name} has no contract of layers with exhaustive = true")
    return found


def picture(floors: Contracts, package: Path) -> str:
    """Return the floors of a package as HTML.

    Args:
        floors: what the contracts say.
        package: the folder of the package.

    Raises:
        FloorsError: the contracts and the files are not about the same rooms.
    """
    name = package.name
    return (
        f'<div class="floors"><p>{_named(name, package / "__init__.py")}</p>'
        f"{_house(name, package, floors)}</div>"
    )


def _house(name: str, folder: Path, floors: Contracts) -> str:
    """Return the floors of a package or of one of its wings, the top one first."""
    if name not in floors:
        raise FloorsError(
            f"no contract names the floors of {name}: add one of type layers, with "
            f'containers = ["{name}"] and exhaustive = true, to pyproject.toml'
        )
    layers = f"the layers of {name} in pyproject.toml"
    named = [room for floor in floors[name] for room in floor]
    present = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    present |= {path.parent.name for path in folder.glob("*/__init__.py")}
    for room in sorted(present.difference(named)):
        raise FloorsError(f"no floor of {name} has {name}.{room}: add it to {layers}")
    for room in named:
        if room not in present:
            raise FloorsError(
                f"{name} has no module {room}: take it out of {layers}, which are names parted by |"
            )
        if named.count(room) > 1:
            raise FloorsError(f"{name}.{room} is on two floors: leave it on one")
    rows = (
        "".join(f"<li>{_room(f'{name}.{room}', folder / room, floors)}</li>" for room in floor)
        for floor in floors[name]
    )
    return f"<ol>{''.join(f'<li><ul>{row}</ul></li>' for row in rows)}</ol>"


def _room(name: str, path: Path, floors: Contracts) -> str:
    if path.is_dir():
        return _named(name, path / "__init__.py") + _house(name, path, floors)
    return _named(name, path.with_suffix(".py"))


def _named(name: str, file: Path) -> str:
    """Return the last part of a module's name, and the first line of its docstring."""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    if not docstring:
        raise FloorsError(f"{name} says nothing of itself: begin {file.name} with a docstring")
    summary = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(docstring.splitlines()[0]))
    return f"<strong>{escape(name.rpartition('.')[2])}</strong> <span>{summary}</span>"
