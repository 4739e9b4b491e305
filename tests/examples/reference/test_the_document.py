"""No part of the reference document was forgotten, invented or changed.

`DIGESTS` lists the parts of the document. The last tests need it to lie beside the project.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import io
import keyword
import re
import sys
import textwrap
import tokenize
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from support.reference import EMITTING, HANDLING, ORGANIZATION, RENDERINGS

DOCUMENT = Path(__file__).parents[3].parent / "shared" / "reference" / "event-system.md"

DIGESTS = {
    ("Using the Dispatcher", 0): "a12f41f79c",
    ("In Services", 0): "729cdfe1fe",
    ("Method 1: Using Decorators (Recommended)", 0): "a14bcba709",
    ("Method 2: Programmatic Registration", 0): "3184db4acc",
    ("Method 3: Conditional Event Handling", 0): "1caca7a337",
    ("Method 4: Multiple Event Handler", 0): "e97bb47484",
    ("Method 5: Handler with Error Handling", 0): "8ea880cbf4",
    ("Method 6: Async Event Handlers (Advanced)", 0): "b5263b9166",
    ("2. Create Handler Function", 0): "13bcb8feef",
    ("1. Define the Signal", 0): "c42f8e82de",
    ("2. Create Context Model (Optional)", 0): "682f4cce8c",
    ("3. Create Event Handler", 0): "6b3418da98",
    ("4. Register Handler (if in new module)", 0): "478a685068",
    ("5. Emit the Event", 0): "32a964641c",
    ("1. Define the Signal and Context", 0): "de121de86f",
    ("2. Create Event Handlers", 0): "9f0e6d582d",
    ("3. Register Handlers", 0): "57b7e37cf3",
    ("4. Emit Events from Your Service", 0): "4b44bfca9c",
    ("5. Usage", 0): "86f32ffdab",
    ("Configuration", 0): "befb667c9f",
    ("Testing Event Emission", 0): "9774976146",
    ("Testing Event Handlers", 0): "e915a006cf",
    ("Debugging", 0): "87d51495da",
    (HANDLING, "@on_event('event_name')"): "6f23d44f8c",
    (HANDLING, "@on_user_login()"): "9c4470ee5b",
    (HANDLING, "@on_login_failed()"): "e3d32ba65d",
    (HANDLING, "@on_user_registered()"): "535d12fe19",
    (HANDLING, "register_handler()"): "ff0e2b64d7",
    (EMITTING, "emit_event('name', **data)"): "778072a8ec",
    (EMITTING, "emit_login_event(context)"): "2ed87c54fa",
    (EMITTING, "dispatcher.emit_typed()"): "69d33519bf",
    (EMITTING, "signal.send()"): "ac581e9b99",
    (ORGANIZATION, "auth_handlers.py"): "d1165ed7a1",
    (ORGANIZATION, "audit_handlers.py"): "70d654f525",
    (ORGANIZATION, "security_handlers.py"): "72bc4684a3",
    (ORGANIZATION, "system_handlers.py"): "301f43adcc",
}
"""Every Python block, by its heading and its index under it, and every row of the Quick
Reference, by its table's heading and its pattern; each with the digest of its text."""


class Part(NamedTuple):
    """A Python block or a row of the Quick Reference."""

    heading: str
    name: int | str
    text: str

    @property
    def digest(self):
        """Ten digits that change with the text, but not with its indentation or width."""
        lines = [line.rstrip() for line in textwrap.dedent(self.text).strip().splitlines()]
        if isinstance(self.name, str):
            lines = [" ".join(line.split()) for line in lines]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:10]


def parts_of(document):
    """Return the Python blocks of a document and the rows of its Quick Reference.

    Raises:
        ValueError: a fence is of another language, or not closed.
    """
    parts, found = [], Counter()
    heading, in_quick_reference = "", False
    lines = iter(document.splitlines())
    for line in lines:
        if line.lstrip().startswith("```"):
            language, body = line.strip(" `"), []
            while not (inner := next(lines, "not closed")).lstrip().startswith("```"):
                if inner == "not closed":
                    raise ValueError(f"a fence under '{heading}' is not closed")
                body.append(inner)
            if language == "python":
                parts.append(Part(heading, found[heading], "\n".join(body)))
                found[heading] += 1
            elif language:
                raise ValueError(f"a fence under '{heading}' is in {language}")
        elif title := re.fullmatch(r"(#+) (.+)", line):
            heading = title[2].strip()
            if len(title[1]) <= 2:
                in_quick_reference = heading == "Quick Reference"
        elif in_quick_reference and (row := re.match(r"\| `([^`]+)`", line)):
            parts.append(Part(heading, row[1], line))
    return parts


def names_in(code):
    """Return the names in a block as they are read here, its events and context keys included."""
    names = set()
    for token in tokenize.generate_tokens(io.StringIO(textwrap.dedent(code)).readline):
        if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
            names.add("madcrow_events" if token.string == "events" else token.string)
        elif literal := re.fullmatch(r"([\"'])([a-z_-]+)\1", token.string):
            names.add(literal[2])
    return names


def words_in(pieces):
    """Return the words, hyphens included, in the sources of what stands for a block."""
    sources = [piece if isinstance(piece, str) else inspect.getsource(piece) for piece in pieces]
    return {word for source in sources for word in re.findall(r"[\w-]+", source)}


@pytest.fixture
def renderings(monkeypatch):
    """Return what stands for each part, whether or not pytest has collected the other files."""
    RENDERINGS.clear()
    for path in Path(__file__).parent.glob("test_*.py"):
        if path.name != Path(__file__).name:
            spec = importlib.util.spec_from_file_location(f"renderings_in_{path.stem}", path)
            module = importlib.util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, spec.name, module)  # for `inspect`
            spec.loader.exec_module(module)
    return RENDERINGS


@pytest.fixture
def reference():
    if not DOCUMENT.is_file():
        pytest.skip("the reference document does not lie beside the project")
    return parts_of(DOCUMENT.read_text(encoding="utf-8"))


def test_a_test_stands_for_every_part_on_the_list(renderings):
    """And none for a part that is not on it."""
    assert renderings.keys() == DIGESTS.keys()


def test_no_part_of_the_document_is_forgotten_invented_or_changed(reference):
    """Whoever changes a block finds the test that stands for it, and the digest to renew."""
    assert {part[:2]: part.digest for part in reference} == DIGESTS
    assert len(reference) == len(DIGESTS)


def test_a_test_has_the_names_of_the_block_that_it_stands_for(reference, renderings):
    """Modules, functions, arguments, events and context keys have the names they have there."""
    missing = {
        part[:2]: names_in(part.text) - words_in(renderings.get(part[:2], ()))
        for part in reference
        if isinstance(part.name, int)
    }
    assert {part: names for part, names in missing.items() if names} == {}


def test_the_parts_of_a_document_are_its_blocks_and_the_rows_of_its_quick_reference():
    """Blocks are counted under their heading; other tables and plain fences are no parts."""
    document = """
# One

| `no` | part |

```python
# no heading
x = 1
```

```
# no heading
```

```python
y = 2
```

## Quick Reference

### Table

| Pattern | Use |
| ------- | --- |
| `a()`   | b   |

## Two

| `no` | part |
"""
    parts = parts_of(document)
    assert parts == [
        Part("One", 0, "# no heading\nx = 1"),
        Part("One", 1, "y = 2"),
        Part("Table", "a()", "| `a()`   | b   |"),
    ]
    assert parts[2].digest == Part("Table", "a()", "| `a()` | b |").digest
    assert parts[0].digest == Part("One", 0, "  # no heading\n  x = 1  \n").digest
    assert parts[0].digest != Part("One", 0, "# no heading\nx = 2").digest


@pytest.mark.parametrize(
    ("document", "message"),
    [("# A\n```js\n1\n```\n", "'A' is in js"), ("# A\n```python\n1\n", "'A' is not closed")],
)
def test_no_block_escapes_by_its_language_or_its_end(document, message):
    """A fence that is neither Python nor plain, or never ends, would hide a block."""
    with pytest.raises(ValueError, match=message):
        parts_of(document)
