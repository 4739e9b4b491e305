"""A built-in event stands in each place where users look for it; what is missing is named."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

import madcrow_events
from madcrow_events import madcrow_signals
from support.built_in import PAGE, rows_of

MODELS, SIGNALS, EMITTERS, DECORATORS = (
    "models.py",
    "signals/__init__.py",
    "dispatcher.py",
    "handlers.py",
)
DOCS = "docs/reference/events.md"
MAKERS = {SIGNALS: "_declare", EMITTERS: "_emitter", DECORATORS: "_decorator"}
OTHER_MODELS = {"BaseEventContext", "GenericEventContext", "HandlerFailedEventContext"}

PACKAGE = Path(madcrow_events.__file__).parent
SOURCES = {place: (PACKAGE / place).read_text("utf-8") for place in (MODELS, *MAKERS)}
SOURCES[DOCS] = PAGE.read_text("utf-8")


class Made(NamedTuple):
    """A name that a module makes for an event, or a signal for a model."""

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


def listed_in(source: str) -> list[str]:
    """Return a module's `__all__`."""
    found = re.search(r"^__all__ = (\[.*?^\])", source, re.DOTALL | re.MULTILINE)
    assert found
    return list(ast.literal_eval(found[1]))


def missing(sources: Mapping[str, str]) -> list[str]:
    """Return what is missing of the built-in events, each with its event or model and its place."""
    found: list[str] = []

    def expect(condition: object, event: str, place: str, what: str) -> None:
        if not condition:
            found.append(f"{event}: {place} lacks {what}")

    rows = rows_of(sources[DOCS])
    made = {place: {it.of: it for it in made_in(sources[place], MAKERS[place])} for place in MAKERS}
    signals = {it.name: it for it in made[SIGNALS].values()}
    classes = {
        node.name: (ast.get_docstring(node) or "").partition("\n")[0]
        for node in ast.parse(sources[MODELS]).body
        if isinstance(node, ast.ClassDef) and re.fullmatch(r"[A-Z]\w*EventContext", node.name)
    }
    for model in classes.keys() - OTHER_MODELS - made[SIGNALS].keys():
        expect(False, model, SIGNALS, "a signal for this model")

    for event in sorted({*rows, *signals, *made[EMITTERS], *made[DECORATORS]}):
        row, signal = rows.get(event), signals.get(event)
        expect(row, event, DOCS, "a row in the table of events")
        expect(signal, event, SIGNALS, "the signal")
        model = signal.of if signal else row.context if row else ""
        expect(classes.get(model), event, MODELS, f"the model {model} with its docstring")
        expect(model in listed_in(sources[MODELS]), event, MODELS, f"{model} in __all__")
        expect(f"\n| `{model}` | " in sources[DOCS], event, DOCS, f"the fields of {model}")
        if row:
            expect(row.context == model, event, DOCS, f"{model} in the row of the event")
            expect(row.meaning == classes.get(model), event, DOCS, "the model's first sentence")
        if signal:
            expect(event in listed_in(sources[SIGNALS]), event, SIGNALS, "the name in __all__")
            expect(signal.hover.endswith("."), event, SIGNALS, "a sentence below the signal")
        helpers = {place: made[place].get(event) for place in (EMITTERS, DECORATORS)}
        documented = {EMITTERS: row and row.emitter, DECORATORS: row and row.decorator}
        if not any(helpers.values()) and not any(documented.values()):
            continue
        for place, helper in helpers.items():
            expect(helper, event, place, f"{documented[place] or 'the helper'}")
            if helper:
                expect(
                    helper.name in listed_in(sources[place]),
                    event,
                    place,
                    f"{helper.name} in __all__",
                )
                stands_alone = f"`{event}`" in helper.hover and helper.hover.endswith(".")
                expect(stands_alone, event, place, f"a sentence on {helper.name}")
                expect(documented[place] == helper.name, event, DOCS, f"{helper.name} in its row")
    return found


MISSING = missing(SOURCES)


@pytest.mark.parametrize("event", [*madcrow_signals._built_in])
def test_a_built_in_event_is_missing_in_no_place(event: str) -> None:
    assert [it for it in MISSING if it.startswith(f"{event}:")] == []


def test_nothing_is_half_a_built_in_event() -> None:
    """A model, emitter, decorator or row without a signal belongs to no declared event."""
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
    (
        SIGNALS,
        "account_closed: Final",
        'account_locked: Final = _declare("account_locked", models.AccountLockedEventContext)\n',
    ),
    (SIGNALS, "account_closed: Final", '"""Emitted when an account is locked."""\n'),
    (EMITTERS, '    "emit_account_closed_event",\n', '    "emit_account_locked_event",\n'),
    (
        EMITTERS,
        "emit_account_closed_event: Final",
        'emit_account_locked_event: Final = _emitter("account_locked", events.account_locked)\n',
    ),
    (
        EMITTERS,
        "emit_account_closed_event: Final",
        '"""Emit `account_locked`: an account is locked."""\n',
    ),
    (DECORATORS, '    "on_account_closed",\n', '    "on_account_locked",\n'),
    (
        DECORATORS,
        "on_account_closed: Final",
        'on_account_locked: Final = _decorator("on_account_locked", events.account_locked)\n',
    ),
    (
        DECORATORS,
        "on_account_closed: Final",
        '"""Subscribe a function to `account_locked`: an account is locked."""\n',
    ),
    (
        DOCS,
        "| `account_closed` | ",
        (
            "| `account_locked` | An account is locked. | `emit_account_locked_event` "
            "| `on_account_locked` | `AccountLockedEventContext` |\n"
        ),
    ),
    (
        DOCS,
        "| `AccountClosedEventContext` | ",
        "| `AccountLockedEventContext` | **`user_id`**, `email` |\n",
    ),
]
"""A made-up event: the place, the text that it goes in front of, and its lines."""


def sources_with(added: list[tuple[str, str, str]]) -> dict[str, str]:
    sources = dict(SOURCES)
    for place, anchor, lines in added:
        assert sources[place].count(anchor) == 1
        sources[place] = sources[place].replace(anchor, lines + anchor)
    return sources


def test_a_new_event_takes_at_most_seventeen_lines() -> None:
    assert missing(sources_with(ADDED)) == []
    assert sum(lines.count("\n") for _, _, lines in ADDED) <= 17


@pytest.mark.parametrize("left_out", range(len(ADDED)))
def test_what_a_new_event_lacks_is_named_with_its_place(left_out: int) -> None:
    place = ADDED[left_out][0]
    rest = ADDED[:left_out] + ADDED[left_out + 1 :]

    assert any(f": {place} lacks " in it for it in missing(sources_with(rest)))
