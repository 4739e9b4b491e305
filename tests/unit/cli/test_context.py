"""Reading the context of an event from the command line."""

from __future__ import annotations

import io
import sys

import pytest

from support.command import SHOP, Command, command

__all__ = ["command"]

SEEN = """
    from typing import Literal
    from uuid import UUID
    from madcrow_events import BaseEventContext, current_event, madcrow_signals, on_event

    @madcrow_signals.event
    class Everything(BaseEventContext):
        number: int = 0
        text: str = ""
        flag: bool = False
        tags: list[str] = []
        sizes: dict[str, int] = {}
        kind: Literal["web", 3] = "web"
        customer: UUID | int | None = None

    madcrow_signals.signal("loose_thing")

    @on_event("*")
    def show(**fields):
        base = ("timestamp", "request_id", "user_agent", "ip_address")
        return {name: it for name, it in current_event().fields.items() if name not in base}
"""


@pytest.fixture
def seen(command: Command):
    """Return what a handler sees of an event that is emitted with these arguments."""
    command.write(seen=SEEN)

    def emit(*arguments: str):
        ended = command("emit", *arguments, "--yes", "--json", app="seen")
        assert ended.err == ""
        return ended.record["handlers"][0]["value"]

    return emit


@pytest.mark.parametrize(
    ("pair", "field", "value"),
    [
        ("number=7", "number", 7),
        ("text=7", "text", "7"),
        ("text=[1, 2]", "text", "[1, 2]"),
        ("text=", "text", ""),
        ("text=a=b", "text", "a=b"),
        ("flag=yes", "flag", True),
        ('tags=["a", "b"]', "tags", ["a", "b"]),
        ('sizes={"a": 1}', "sizes", {"a": 1}),
        ("kind=3", "kind", 3),
        ("customer=null", "customer", None),
    ],
)
def test_a_field_is_read_as_its_type(seen, pair: str, field: str, value: object):
    """As text where that fits, and else as JSON."""
    assert seen("everything", pair)[field] == value


def test_fields_of_an_event_without_a_model_are_json_if_they_are(seen):
    """Quotation marks keep a number a text."""
    pairs = ("a=7", "b=seven", 'c="7"', "d=[1]", "e=1.5", "f=true", "g=")
    values = {"a": 7, "b": "seven", "c": "7", "d": [1], "e": 1.5, "f": True, "g": ""}
    assert seen("loose_thing", *pairs) == values


def test_a_file_gives_fields_and_pairs_add_to_it(seen, command: Command):
    """`--json FILE` reads, and `--json` alone writes."""
    (command.folder / "context.json").write_text('{"number": 7, "sizes": {"a": 1}}')
    file = str(command.folder / "context.json")
    assert seen("everything", "--json", file, "text=x")["sizes"] == {"a": 1}
    assert seen("everything", f"--json={file}")["number"] == 7
    ended = command("emit", "everything", "number=8", "--json", file, "--yes", app="seen")
    assert "the field number is given twice" in ended.err


def test_the_standard_input_is_a_file_too(seen, monkeypatch: pytest.MonkeyPatch):
    """Its name is a hyphen."""
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"number": 9}'))
    assert seen("everything", "--json", "-")["number"] == 9


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is no JSON: Expecting property name"),
        ("[1]", "has no object: write the fields as {...}"),
        ('{"a": 1, "a": 2}', "the key a is given twice"),
        ('{"user_id": 1, "email": [1]}', "email: Input should be a valid string"),
        ("[" * 100_000, "is nested too deeply"),
        ("\udcff", "is not in UTF-8"),
        (None, "cannot be read (No such file or directory): give the name of a file"),
    ],
    ids=["malformed", "a list", "twice", "unfit", "deep", "no text", "absent"],
)
def test_a_file_without_a_context(command: Command, text: str | None, told: str):
    """The message says what is wrong with it."""
    file = command.folder / "context.json"
    if text is not None:
        file.write_text(text, encoding="utf-8", errors="surrogateescape")
    ended = command("emit", "user_logged_in", "--json", str(file), "--yes")
    assert ended.status == 2
    assert told in ended.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["order_id=1", "order_id=2"], "the field order_id is given twice"),
        (["order_id"], "'order_id' gives no field: write it as in order_id=7"),
        (["=7"], "'=7' gives no field"),
        (["sender=me"], "no field is called sender"),
        (["order_id=x", "total=-1"], "order_id: Input should be a valid integer"),
        (["order_id=x", "total=-1"], "total: Input should be greater than 0"),
        (["order_id=1"], "total: Field required"),
        (["order_id=1", "total=1", "nothing=1"], "nothing: the model has no such field\n"),
        (
            ["order_id=1", "total=1", "tag=x"],
            "has no such field: did you mean tags?",
        ),
        (["order_id=1", "total=1", "tags=[1]"], "tags.0: Input should be a valid string"),
        (["order_id=1", "total=1", "tags=[1"], "tags: Input should be a valid"),
        (["--json", "a", "--json", "b"], "give --json FILE once"),
    ],
)
def test_fields_that_do_not_fit(command: Command, arguments: list[str], told: str):
    """Nothing is emitted, and the message names the field."""
    ended = command.write(shop=SHOP)("emit", "order_placed", "--yes", *arguments, app="shop")
    assert ended.status == 2
    assert told in ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err


def test_a_model_that_refuses_the_fields_together(command: Command):
    """A validator of the whole model names no field."""
    command.write(
        picky="""
            from pydantic import model_validator
            from madcrow_events import BaseEventContext, madcrow_signals

            @madcrow_signals.event
            class Picky(BaseEventContext):
                low: int
                high: int

                @model_validator(mode="after")
                def in_order(self):
                    if self.low > self.high:
                        raise ValueError("low is above high")
                    return self
        """
    )
    ended = command("emit", "picky", "low=2", "high=1", "--yes", app="picky")
    assert ended.status == 2
    assert "the fields together: Value error, low is above high" in ended.err
    explained = command("explain", "picky", "low=2", "high=1", app="picky")
    assert explained.status == 2


def test_some_fields_explain_an_emission_of_keywords(command: Command):
    """Each is read as its type, also where others are missing; what is wrong is named alone."""
    command.write(
        strict="""
            from uuid import UUID
            from pydantic import Field
            from madcrow_events import BaseEventContext, madcrow_signals, on_event

            class Opaque: ...

            @madcrow_signals.event
            class Strict(BaseEventContext, arbitrary_types_allowed=True):
                id: UUID
                text: str
                sizes: list[int] = Field(alias="sizesOfIt", default=[])
                missing: int
                opaque: Opaque | None = None

            def is_as_it_should_be(fields):
                print(fields)
                return (fields["id"], fields["text"], fields["sizes"]) == (UUID(int=7), "7", [1])

            on_event(Strict, when=is_as_it_should_be, id="hears")(lambda: None)
        """
    )
    pairs = ("id=00000000-0000-0000-0000-000000000007", "text=7", "sizes=[1]", "opaque=null")
    told = command("explain", "strict", *pairs, "--json", app="strict")
    assert [it["name"] for it in told.record["called"]] == ["hears"], told.err
    wrong = command("explain", "strict", "id=7", app="strict")
    assert wrong.status == 2
    assert wrong.err.count("\n") == 2
    assert "id: Input should be a valid UUID" in wrong.err
    full = command("explain", "strict", *pairs, "missing=1", "--json", app="strict")
    assert [it["name"] for it in full.record["called"]] == ["hears"], full.err


def test_names_that_have_another_meaning_are_refused_in_a_file_too(command: Command):
    """`sender` would choose other handlers than the ones that were listed."""
    (command.folder / "context.json").write_text('{"sender": 1}')
    command.write(plain="import madcrow_events as m\nm.madcrow_signals.signal('plain_thing')")
    file = str(command.folder / "context.json")
    ended = command("emit", "plain_thing", "--json", file, "--yes", app="plain")
    assert ended.status == 2
    assert "no field is called sender" in ended.err


VALIDATING = """
    from typing import Any
    from pydantic import ConfigDict, Field, field_validator
    from madcrow_events import BaseEventContext, madcrow_signals, on_event

    @madcrow_signals.event
    class Failing(BaseEventContext):
        x: int

        @field_validator("x")
        @classmethod
        def look_up(cls, value): return {}[value]

    @madcrow_signals.event
    class Before(BaseEventContext):
        cents: int
        name: str = ""

        @field_validator("cents", mode="before")
        @classmethod
        def to_cents(cls, value): return round(value * 100)

    @madcrow_signals.event
    class Undefined(BaseEventContext):
        x: "Nowhere"

    @madcrow_signals.event
    class Aliased(BaseEventContext):
        first: int = Field(alias="erste")
        second: int

    @madcrow_signals.event
    class Loose(BaseEventContext):
        model_config = ConfigDict(extra="allow")
        need: int

    def factory(): raise LookupError("no factory")

    class Odd:
        def __repr__(self): raise LookupError("no repr")

    @madcrow_signals.event
    class Defaults(BaseEventContext):
        y: int = Field(default_factory=factory)
        odd: Any = Odd()

    @on_event("*")
    def show(**fields): return fields.get("cents")
"""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("emit", "failing", "x=1", "--yes"), "reading Failing raised KeyError: 1"),
        (("emit", "undefined", "x=1", "--yes"), "reading Undefined raised PydanticUserError"),
        (("explain", "undefined", "x=1"), "reading Undefined raised PydanticUserError"),
        (("show", "defaults"), "showing defaults raised LookupError"),
    ],
    ids=range(4),
)
def test_what_a_model_raises_is_shown_as_the_applications(
    command: Command, arguments: tuple[str, ...], told: str
):
    """With the status of the application's exceptions, and without a traceback."""
    ended = command.write(checks=VALIDATING)(*arguments, app="checks")
    assert (ended.status, ended.out) == (3, "")
    assert told in ended.err
    assert "Traceback" not in ended.err


def test_a_validator_that_takes_no_text_gets_the_value(command: Command):
    """As one of the mode `before` does."""
    command.write(checks=VALIDATING)
    ended = command("emit", "before", "cents=2.5", "name=7", "--yes", "--json", app="checks")
    assert ended.record["handlers"][0]["value"] == 250
    ended = command("emit", "before", "cents=2.5", "--yes", "--json", app="checks")
    assert ended.record["handlers"][0]["value"] == 250


def test_fields_are_explained_by_their_aliases_and_without_a_declaration(command: Command):
    """Other fields are missing in both."""
    command.write(checks=VALIDATING)
    aliased = command("explain", "aliased", "erste=1", "--json", app="checks").record
    assert aliased["missing"] == ["second"]
    loose = command("explain", "loose", "foo=1", "--json", app="checks").record
    assert (loose["missing"], len(loose["called"])) == (["need"], 1)
