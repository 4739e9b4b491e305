"""The picture of the floors shows the package as it is, or says what to mend."""

from __future__ import annotations

import ast
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import madcrow_events
from support.hooks import load_hook

ROOT = Path(__file__).parents[2]
PACKAGE = Path(madcrow_events.__file__).parent  # of the wheel, where that is tested
HOOK = ROOT / "docs" / "hooks" / "floors.py"


floors = load_hook("floors")


class Rooms(HTMLParser):
    """What a picture says: of each room its wings, its name and its summary; and the floors."""

    def __init__(self, picture: str) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.floors: list[set[str]] = []
        self._open: list[str] = []
        self._wings: list[str] = []
        self._at: list[set[str]] = []
        self._name = ""
        self.feed(picture)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._open.append(tag)
        if tag == "ol":
            self._wings.append(self._name)
        elif tag == "ul":
            self._at.append(set())
            self.floors.append(self._at[-1])

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "ol":
            self._wings.pop()
        elif tag == "ul":
            self._at.pop()

    def handle_data(self, text: str) -> None:
        if "strong" in self._open:
            self._name = ".".join([*self._wings[-1:], text])
            assert self._name not in self.found
            self.found[self._name] = ""
            if self._at:
                self._at[-1].add(self._name)
        elif "span" in self._open:
            self.found[self._name] += text


@pytest.fixture(scope="module")
def drawn() -> Rooms:
    """Return what the picture of this package says."""
    return Rooms(floors.picture(floors.contracts(ROOT / "pyproject.toml"), PACKAGE))


def summaries() -> dict[str, str]:
    """Return the first line of each module's docstring, as a reader sees it."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        name = ".".join(part for part in parts if part != "__init__")
        found[name] = docstring.splitlines()[0].replace("`", "")
    return found


def test_the_picture_has_each_module_once_with_the_first_line_of_its_docstring(
    drawn: Rooms,
) -> None:
    assert drawn.found == summaries()


def test_the_picture_has_the_order_of_the_contracts(drawn: Rooms) -> None:
    contracts = floors.contracts(ROOT / "pyproject.toml")

    def in_order(name: str) -> list[set[str]]:
        """Return the floors of a wing, and below each floor those of the wings on it."""
        found = []
        for floor in contracts[name]:
            found.append({f"{name}.{room}" for room in floor})
            for room in floor:
                if f"{name}.{room}" in contracts:
                    found += in_order(f"{name}.{room}")
        return found

    assert drawn.floors == in_order("madcrow_events")


def test_the_page_has_one_place_for_the_picture() -> None:
    page = (ROOT / "docs" / "contributing" / "architecture.md").read_text(encoding="utf-8")
    assert page.count(floors.MARKER) == 1


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """Return the folder of a package with two rooms, and one in a wing."""
    house = tmp_path / "house"
    for file in ("__init__.py", "attic.py", "cellar.py", "wing/__init__.py", "wing/hall.py"):
        path = house / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'"""What {file} says.\n\nAnd more."""\n', encoding="utf-8")
    return house


def plan() -> dict[str, list[list[str]]]:
    return {"house": [["attic", "wing"], ["cellar"]], "house.wing": [["hall"]]}


def test_a_summary_is_text_and_not_markup(house: Path) -> None:
    """It can neither break the page nor run in it; what is code, is shown as code."""
    (house / "attic.py").write_text('"""If `a < b`, <script>x</script> & "more"."""\n')
    picture = floors.picture(plan(), house)
    assert (
        "<code>a &lt; b</code>, &lt;script&gt;x&lt;/script&gt; &amp; &quot;more&quot;." in picture
    )
    assert Rooms(picture).found["house.attic"] == 'If a < b, <script>x</script> & "more".'


def without_a_room(plan: dict[str, Any], house: Path) -> None:
    plan["house"][1].remove("cellar")


def without_a_contract(plan: dict[str, Any], house: Path) -> None:
    del plan["house.wing"]


def with_a_room_that_is_gone(plan: dict[str, Any], house: Path) -> None:
    (house / "wing" / "hall.py").unlink()


def with_a_room_twice(plan: dict[str, Any], house: Path) -> None:
    plan["house"][0].append("cellar")


def with_a_silent_room(plan: dict[str, Any], house: Path) -> None:
    (house / "attic.py").write_text("x = 1\n")


@pytest.mark.parametrize(
    ("mistake", "fix"),
    [
        (without_a_room, "no floor of house has house.cellar: add it to the layers of house"),
        (
            without_a_contract,
            'house.wing: add one of type layers, with containers = ["house.wing"]',
        ),
        (with_a_room_that_is_gone, "house.wing has no module hall: take it out of the layers"),
        (with_a_room_twice, "house.cellar is on two floors: leave it on one"),
        (with_a_silent_room, "house.attic says nothing of itself: begin attic.py with a docstring"),
    ],
)
def test_a_picture_that_would_be_wrong_is_an_error_that_names_the_fix(
    mistake: Any, fix: str, house: Path
) -> None:
    wrong = plan()
    mistake(wrong, house)
    with pytest.raises(floors.FloorsError, match=re.escape(fix)):
        floors.picture(wrong, house)


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("[tool", "pyproject.toml has no contracts that can be read"),
        ("[tool.other]", "no contracts that can be read"),
        ("[[tool.importlinter.contracts]]\ntype = 'layers'\nexhaustive = true", "its containers"),
        ("[[tool.importlinter.contracts]]\ntype = 'layers'", "layers with exhaustive = true"),
    ],
)
def test_contracts_that_cannot_be_read_are_an_error_that_names_the_fix(
    text: str, fix: str, tmp_path: Path
) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(floors.FloorsError, match=re.escape(fix)):
        floors.contracts(file)


def test_a_pyproject_that_is_not_there_is_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(floors.FloorsError, match=r"pyproject\.toml has no contracts"):
        floors.contracts(tmp_path / "pyproject.toml")


def test_another_page_is_left_as_it_is() -> None:
    assert (
        floors.on_page_content("<p>text</p>", page=None, config=None, files=None) == "<p>text</p>"
    )
