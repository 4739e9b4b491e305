"""Examples of contexts: each is one that its model takes."""

from __future__ import annotations

import datetime as dt
import json
import sys
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import AnyUrl, BaseModel, Field, SecretStr, ValidationError

from madcrow_events import BaseEventContext, SignalRegistry
from madcrow_events.cli._code import program_for
from madcrow_events.cli._examples import example_of
from support.command import Command, command

__all__ = ["command"]


class Colour(Enum):
    RED = "red"


class Line(BaseModel):
    article: str
    count: Annotated[int, Field(ge=5, le=9)]


class Tree(BaseModel):
    branches: list[Tree] = []


class Endless(BaseModel):
    next: Endless


FITTING = {
    "text": str,
    "long_text": Annotated[str, Field(min_length=30, max_length=40)],
    "short_text": Annotated[str, Field(max_length=2)],
    "number": int,
    "below": Annotated[int, Field(lt=-5)],
    "above": Annotated[float, Field(gt=10.5)],
    "share": Annotated[float, Field(gt=0, lt=1)],
    "narrow": Annotated[float, Field(gt=5, lt=5.5)],
    "upper": Annotated[float, Field(gt=5, le=5.5)],
    "lower": Annotated[float, Field(ge=-5.5, lt=-5)],
    "between": Annotated[int, Field(gt=5, lt=7)],
    "last": Annotated[int, Field(gt=5, le=6)],
    "rate": Annotated[Decimal, Field(gt=0, lt=1)],
    "steps": Annotated[float, Field(multiple_of=0.25, gt=5, lt=5.5)],
    "last_step": Annotated[int, Field(multiple_of=7, lt=21, gt=8)],
    "step": Annotated[int, Field(multiple_of=7, gt=7)],
    "truth": bool,
    "money": Decimal,
    "moment": dt.datetime,
    "day": dt.date,
    "clock": dt.time,
    "span": dt.timedelta,
    "id": UUID,
    "address": IPv4Address,
    "address_6": IPv6Address,
    "link": AnyUrl,
    "colour": Colour,
    "kind": Literal["web", "phone"],
    "one": Literal["only"],
    "either": int | str,
    "line": Line,
    "lines": Annotated[list[Line], Field(min_length=2)],
    "pair": tuple[int, str],
    "table": dict[str, int],
    "anything": Any,
    "nothing": None,
    "raw": bytes,
    "tree": Tree,
    "secret": SecretStr,
    "said": Annotated[int, Field(examples=[42])],
}


@pytest.mark.parametrize("name", FITTING)
def test_an_example_fits_its_model(name: str, signals: SignalRegistry):
    """It has what the model requires, within its bounds, and its program makes an equal one."""
    model = type(
        "Model",
        (BaseEventContext,),
        {"__module__": __name__, "__annotations__": {name: FITTING[name]}},
    )
    schema = model.model_json_schema()
    example = example_of(schema, schema.get("$defs", {}))
    assert list(example) == [name]
    context = model.model_validate_json(json.dumps(example))
    program = program_for(signals, signals.signal("fitting", context=model), context)
    sys.modules[__name__].Model = model
    made: list[BaseEventContext] = []
    names = {"emit_event": made.append}
    exec(program.replace("from madcrow_events import emit_event", ""), names)  # noqa: S102  # it is what users copy
    assert made[0].model_copy(update={"timestamp": context.timestamp}) == context


def test_an_endless_model_has_no_example():
    """Its example would have no end, so it is cut off, and the model refuses it."""
    schema = Endless.model_json_schema()
    with pytest.raises(ValidationError):
        Endless.model_validate(example_of(schema, schema["$defs"]))


def test_a_default_is_an_example():
    """If a required property has one."""
    assert example_of({"default": 3, "type": "integer"}, {}) == 3


@pytest.mark.parametrize(("kind", "number"), [("integer", 1), ("number", 1.0)])
def test_bounds_that_nothing_is_between_have_the_usual_number(kind: str, number: float):
    """Which the model refuses."""
    schema = {"type": kind, "exclusiveMinimum": 5, "exclusiveMaximum": 5}
    assert example_of(schema, {}) == number


ODD = """
    from collections.abc import Callable
    from decimal import Decimal
    from pydantic import Field, field_validator
    from madcrow_events import BaseEventContext, madcrow_signals

    @madcrow_signals.event
    class NeedsCall(BaseEventContext):
        call: Callable[[], int]
        number: int

    class Shared(BaseEventContext):
        number: int

        @field_validator("number")
        @classmethod
        def is_even(cls, number):
            if number % 2:
                raise ValueError("odd")
            return number

    madcrow_signals.signal("first_thing", context=Shared)
    madcrow_signals.signal("second_thing", context=Shared)

    @madcrow_signals.event
    class Priced(BaseEventContext):
        price: Decimal = Field(json_schema_extra={"examples": [Decimal("1.50")]})

    def declare():
        class Inner(BaseEventContext):
            number: int = 3
        madcrow_signals.signal("inner_thing", context=Inner)

    declare()
"""


@pytest.mark.parametrize(
    ("event", "call"),
    [
        ("needs_call", "from odd import NeedsCall\n\nemit_event(NeedsCall(call=..., number=...))"),
        ("first_thing", 'import emit_event\n\nemit_event("first_thing", number=...)'),
        ("priced", "import Priced\n\nemit_event(Priced(price=Decimal('1.50')))"),
        ("inner_thing", "import emit_event\n\nemit_event(Inner())"),
    ],
)
def test_code_is_shown_where_no_example_can_be_made(command: Command, event: str, call: str):
    """Dots stand for the values; a model of several events is emitted by name."""
    record = command.write(odd=ODD)("show", event, "--json", app="odd").record
    assert record["code"].endswith(call)
    assert (record["example"] is None) is ("..." in call)
    assert command("show", event, app="odd").status == 0
