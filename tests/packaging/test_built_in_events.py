"""A built-in event stands in each place where users look for it; what is missing is named."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

import madcrow_events
from madcrow_events import madcrow_signals
from support.built_in import BUILT_IN

MODELS, SIGNALS, EMITTERS, DECORATORS = (
    "models.py",
    "signals/_built_in.py",
    "dispatcher/_emitters.py",
    "handlers/_decorators.py",
)
MAKERS = {SIGNALS: "_declare", EMITTERS: "_emitter", DECORATORS: "_decorator"}
HOVERS = {EMITTERS: "Emit `{}`: {}", DECORATORS: "Subscribe a function to `{}`: {}"}
OTHER_MODELS = {"BaseEventContext", "GenericEventContext", "HandlerFailedEventContext"}

PACKAGE = Path(madcrow_events.__file__).parent
SOURCES = {place: (PACKAGE / place).read_text("utf-8") for place in (MODELS, *MAKERS)}


class Made(NamedTuple):
    """A signal made for a model, or an emitter or decorator made for a signal."""

    name: str
    of: str
    hover: str


def made_in(source: str, maker: str) -> Iterator[Made]:
    """Yield what a module makes by its maker, each with the sentence below it."""
    for node, below in pairwise([*ast.parse(source).body, ast.Pass()]):
        match node:
            case ast.AnnAssign(
                target=ast.Name(id=name),
                value=ast.Call(func=ast.Name(id=called), args=[_, ast.Attribute(attr=of)]),
            ) if called == maker:
                match below:
                    case ast.Expr(value=ast.Constant(value=str(hover))):
                        yield Made(name, of, hover)
                    case _:
                        yield Made(name, of, "")


def assigned(source: str, name: str) -> dict[str, str]:
    """Return a dictionary that a module assigns to a name, or its list as the keys of one."""
    found = re.search(rf"^{name}\b[^=]*= ([\[{{].*?^[\]}}])", source, re.DOTALL | re.MULTILINE)
    assert found
    value = ast.literal_eval(found[1])
    return value if isinstance(value, dict) else dict.fromkeys(value, "")


def missing(sources: Mapping[str, str]) -> list[str]:
    """Return what is missing of the built-in events, each with its event or model and its place."""
    found: list[str] = []

    def expect(condition: object, event: str, place: str, what: str) -> None:
        if not condition:
            found.append(f"{event}: {place} lacks {what}")

    docs = assigned(sources[SIGNALS], "_DOCS")
    made = {place: {it.of: it for it in made_in(sources[place], MAKERS[place])} for place in MAKERS}
    listed = {place: assigned(sources[place], "__all__") for place in (MODELS, *MAKERS)}
    signals = {it.name: it for it in made[SIGNALS].values()}
    models = {
        node.name: ast.get_docstring(node)
        for node in ast.parse(sources[MODELS]).body
        if isinstance(node, ast.ClassDef) and re.fullmatch(r"[A-Z]\w*EventContext", node.name)
    }
    for model in models.keys() - OTHER_MODELS - made[SIGNALS].keys():
        expect(False, model, SIGNALS, "a signal for this model")

    for event in sorted({*docs, *signals, *made[EMITTERS], *made[DECORATORS]}):
        signal, doc = signals.get(event), docs.get(event, "")
        model = signal.of if signal else ""
        expect(signal, event, SIGNALS, "the signal")
        expect(doc.endswith("."), event, SIGNALS, "a sentence in _DOCS")
        expect(not signal or signal.hover == doc, event, SIGNALS, "that sentence below the signal")
        expect(event in listed[SIGNALS], event, SIGNALS, "the signal in __all__")
        expect(models.get(model), event, MODELS, f"the model {model} with its docstring")
        expect(model in listed[MODELS], event, MODELS, f"{model} in __all__")
        helpers = {place: made[place].get(event) for place in HOVERS}
        if not any(helpers.values()):
            continue
        for place, helper in helpers.items():
            hover = HOVERS[place].format(event, doc)
            expect(helper, event, place, "the helper")
            expect(not helper or helper.hover == hover, event, place, f'"{hover}" below it')
            expect(not helper or helper.name in listed[place], event, place, "it in __all__")
    return found


MISSING = missing(SOURCES)


@pytest.mark.parametrize("event", [*madcrow_signals._built_in])
def test_a_built_in_event_is_missing_in_no_place(event: str) -> None:
    assert [it for it in MISSING if it.startswith(f"{event}:")] == []


def test_nothing_is_half_a_built_in_event() -> None:
    """A model, emitter or decorator without a signal belongs to no declared event."""
    assert MISSING == []


ADDED = [
    (MODELS, '    "AccountClosedEventContext",\n', '    "AccountLockedEventContext",\n'),
    (
        MODELS,
        "\n\nclass AccountClosedEventContext(",
        (
            "\n\nclass AccountLockedEventContext(_AccountEventContext):\n"
            '    """An account is locked."""\n'
        ),
    ),
    (SIGNALS, '    "account_closed",\n', '    "account_locked",\n'),
    (SIGNALS, '    "account_closed": ', '    "account_locked": "An account is locked.",\n'),
    (
        SIGNALS,
        "account_closed: Final",
        'account_locked: Final = _declare("account_locked", models.AccountLockedEventContext)\n',
    ),
    (SIGNALS, "account_closed: Final", '"""An account is locked."""\n'),
    (EMITTERS, '    "emit_account_closed_event",\n', '    "emit_account_locked_event",\n'),
    (
        EMITTERS,
        "emit_account_closed_event: Final",
        'emit_account_locked_event: Final = _emitter("account_locked", signals.account_locked)\n',
    ),
    (
        EMITTERS,
        "emit_account_closed_event: Final",
        '"""Emit `account_locked`: An account is locked."""\n',
    ),
    (DECORATORS, '    "on_account_closed",\n', '    "on_account_locked",\n'),
    (
        DECORATORS,
        "on_account_closed: Final",
        'on_account_locked: Final = _decorator("account_locked", signals.account_locked)\n',
    ),
    (
        DECORATORS,
        "on_account_closed: Final",
        '"""Subscribe a function to `account_locked`: An account is locked."""\n',
    ),
]
"""A made-up event: the place, the text that it goes in front of, and its lines."""


def sources_with(added: list[tuple[str, str, str]]) -> dict[str, str]:
    sources = dict(SOURCES)
    for place, anchor, lines in added:
        assert sources[place].count(anchor) == 1
        sources[place] = sources[place].replace(anchor, lines + anchor)
    return sources


def test_a_new_event_takes_at_most_fifteen_lines() -> None:
    assert missing(sources_with(ADDED)) == []
    assert sum(lines.count("\n") for _, _, lines in ADDED) <= 15


@pytest.mark.parametrize("left_out", range(len(ADDED)))
def test_what_a_new_event_lacks_is_named_with_its_place(left_out: int) -> None:
    place = ADDED[left_out][0]
    rest = ADDED[:left_out] + ADDED[left_out + 1 :]

    assert any(f": {place} lacks " in it for it in missing(sources_with(rest)))


DOCS_OF_ALL = """
import madcrow_events as it
for name in {names}:
    print(getattr(it, name).doc if name in it.madcrow_signals else getattr(it, name).__doc__)
"""


@pytest.mark.parametrize("optimised", [[], ["-OO"]], ids=["", "-OO"])
def test_a_program_reads_the_sentences_that_an_editor_shows(optimised: list[str]) -> None:
    """Without docstrings, too."""
    made = [it for place in MAKERS for it in made_in(SOURCES[place], MAKERS[place])]
    code = DOCS_OF_ALL.format(names=[it.name for it in made])

    shown = subprocess.run(
        [sys.executable, *optimised, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout

    assert len(made) == len(BUILT_IN) + 2 * sum(row.emitter != "" for row in BUILT_IN.values())
    assert shown.splitlines() == [it.hover for it in made]
