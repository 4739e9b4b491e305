"""The example of every shape: what it prints, and that it lacks none."""

import ast
import subprocess
import sys
from pathlib import Path

from support.fences import fences_in

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "every_shape.py"
SOURCE = ast.parse(EXAMPLE.read_text(encoding="utf-8"))
PAGE = ROOT / "docs" / "reference" / "handler-forms.md"

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
    "context",
    "emission",
    "sender, **",
    "field, field=",
    "sender, field",
    "sender, field, **",
    "sender, context, field, **",
    "",
    "union",  # of the contexts of several events
    "any context",  # of the events of a pattern
    "generic context",  # of an event without a model
    "async context",
    "list of contexts",
}
"""What the handlers take; a comma is between two parameters."""

ROLES = {
    "Emission": "emission",
    "list": "list of contexts",
    "OrderPlaced": "context",
    "OrderEvent": "context",
    "OrderPlaced | OrderPaid": "union",
    "BaseEventContext": "any context",
    "GenericEventContext": "generic context",
}
"""What a parameter is, by its annotation, without what is in brackets; any other is a field."""


def shape(function):
    """Return what a handler takes, in the words of `SHAPES`."""
    parameters = function.args
    required = len(parameters.args) - len(parameters.defaults)
    roles = []
    for place, it in enumerate(parameters.args):
        annotation = ast.unparse(it.annotation).partition("[")[0] if it.annotation else ""
        role = "sender" if it.arg == "sender" else ROLES.get(annotation, "field")
        roles.append(role if place < required else f"{role}=")
    roles += ["**"] if parameters.kwarg else []
    return "async " * isinstance(function, ast.AsyncFunctionDef) + ", ".join(roles)


def shapes_in(module):
    """Return the shapes of the functions that a decorator subscribes."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {shape(it) for it in module.body if isinstance(it, functions) and it.decorator_list}


def calls_of(name):
    calls = (it for it in ast.walk(SOURCE) if isinstance(it, ast.Call))
    return [it for it in calls if ast.unparse(it.func) == name]


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
    """And none that is not in the list of this test."""
    assert shapes_in(SOURCE) == SHAPES


def test_it_has_every_form_of_the_reference():
    """A form that is added to the page is to be added to the example."""
    block = next(fence for fence in fences_in(PAGE.read_text(encoding="utf-8")) if fence.runs)
    forms = shapes_in(ast.parse(block.text))

    assert len(forms) >= 8
    assert forms <= SHAPES


def test_its_handlers_are_subscribed_and_run_in_every_way():
    """By class, by the base of several, by name, by pattern; in the background and in batches."""
    subscribed = [ast.unparse(call) for call in calls_of("on_event")]
    for way in (
        "on_event(OrderPlaced)",
        "on_event(OrderEvent)",
        "on_event('order_placed')",
        "on_event('order_*')",
        "on_event(OrderPlaced, background=True)",
        "on_event(OrderEvent, batch=Batch())",
    ):
        assert way in subscribed, way


def test_it_has_every_kind_of_callable():
    """A method, an object with `__call__`, a partial and a lambda, beside functions."""
    handlers = [ast.unparse(call.args[1]) for call in calls_of("register_handler")]

    assert handlers == [
        "mailer.send",
        "mailer",
        "partial(send_to, 'ada@example.com')",
        "lambda: 'nothing, in a lambda'",
    ]
