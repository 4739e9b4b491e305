"""The example of every shape: what it prints, and that it lacks none."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from support.fences import fences_in

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "every_shape.py"
SOURCE = ast.parse(EXAMPLE.read_text(encoding="utf-8"))
PAGE = ROOT / "docs" / "reference" / "handler-forms.md"
TABLE = ROOT / "docs" / "reference" / "guarantees" / "handlers.md"

PRINTED = """\
order_placed
    the context: order 7
    the emission: order_placed, order 7
    the sender and all fields: order_placed, 7, 12.5
    nothing
    fields by name, one with a default: 7, None
    the sender and a field: order_placed, 7
    the sender, a field and the rest: order_placed, 7, 12.5
    a mixture: order_placed, 12.5, 7, 12.5
    one of two contexts: OrderPlaced
    a context of this class or one derived from it: OrderPlaced
    whatever the pattern fits: OrderPlaced
    the context, in a method: order 7
    the context, in an object that can be called: order 7
    the context, in a partial for ada@example.com: order 7
    nothing, in a lambda
    the context, async: order 7
    the context, in a thread: order 7
    a list of contexts: ['OrderPlaced', 'OrderPaid']
order_paid
    one of two contexts: OrderPaid
    a context of this class or one derived from it: OrderPaid
    whatever the pattern fits: OrderPaid
    a list of contexts: ['OrderPlaced', 'OrderPaid']
order_noted
    whatever the pattern fits: GenericEventContext
    a context without a model: {'text': 'a gift'}
"""

SHAPES = {
    "the context": "context",
    "the emission": "emission",
    "the sender and all fields": "sender, **",
    "fields": "field, field=",
    "the sender and a field": "sender, field",
    "a field and the rest": "sender, field, **",
    "a mixture": "sender, context, field, **",
    "nothing": "",
    "a union": "union",
    "whatever a pattern fits": "any context",
    "what has no model": "generic context",
    "async": "async context",
    "a list": "list of contexts",
}
"""The shapes that a handler may have. A comma is between parameters."""


def role(annotation):
    match annotation and ast.unparse(annotation).split("[")[0]:
        case "Emission":
            return "emission"
        case "list":
            return "list of contexts"
        case "BaseEventContext":
            return "any context"
        case "GenericEventContext":
            return "generic context"
        case "OrderPlaced" | "OrderEvent":
            return "context"
        case "OrderPlaced | OrderPaid":
            return "union"
        case _:
            return "field"


def shape(function):
    """Return what a handler takes, in the words of `SHAPES`."""
    arguments = function.args
    defaults = [None] * (len(arguments.args) - len(arguments.defaults)) + arguments.defaults
    roles = [
        "sender" if given.arg == "sender" else role(given.annotation) + ("=" if default else "")
        for given, default in zip(arguments.args, defaults, strict=True)
        if given.arg != "self"
    ] + ["**"] * bool(arguments.kwarg)
    is_async = isinstance(function, ast.AsyncFunctionDef)
    return "async " * is_async + ", ".join(roles)


def handlers_in(module):
    """Return the functions under a decorator that subscribes them, with that decorator's source."""
    return [
        (function, ast.unparse(function.decorator_list))
        for function in module.body
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        and function.decorator_list
    ]


def calls_of(name):
    return [
        node
        for node in ast.walk(SOURCE)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name
    ]


def test_it_prints_what_each_handler_was_given():
    """Each handler has a line for each of its events, and nothing is said of any failure."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == PRINTED


def test_it_has_every_shape():
    """And each of its shapes is in the list of this test."""
    assert {shape(function) for function, _ in handlers_in(SOURCE)} == set(SHAPES.values())


def test_it_has_every_form_of_the_reference():
    """A form that is added to the page is added to the example."""
    block = next(fence for fence in fences_in(PAGE.read_text(encoding="utf-8")) if fence.runs)
    forms = {shape(function) for function, _ in handlers_in(ast.parse(block.text))}

    assert len(forms) > 5
    assert forms <= set(SHAPES.values())


def test_it_has_every_way_to_name_events_and_to_run():
    """A class, a base of several, a name and a pattern; inline, in the background, in batches."""
    subscribed = " ".join(ast.unparse(call) for call in calls_of("on_event"))
    for form in ("(OrderPlaced)", "(OrderEvent)", "('order_placed')", "('order_*')"):
        assert form in subscribed
    for option in ("background=True", "batch=Batch("):
        assert option in subscribed


@pytest.mark.parametrize("kind", ["mailer.send", "mailer", "partial(", "lambda"])
def test_it_has_every_kind_of_callable(kind):
    """A method, an object with `__call__`, a partial and a lambda, beside functions."""
    given = [ast.unparse(call.args[1]) for call in calls_of("register_handler")]

    assert any(it == kind or it.startswith(kind) for it in given)
