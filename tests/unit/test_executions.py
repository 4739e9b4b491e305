"""A module that runs again takes the place of what it was (N7, H7)."""

from __future__ import annotations

import gc
import importlib.util
import logging
import runpy
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    ContextModelError,
    ContextTypeError,
    ContextValidationError,
    Emission,
    GenericEventContext,
    HandlerSignatureError,
    SignalConflictError,
    SignalRegistry,
    UnknownEventError,
    emit_event,
    get_event_dispatcher,
    madcrow_signals,
)
from support.executions import RUNS, Run
from support.inside import definition_of

MODEL = """
from functools import wraps
from pydantic import BaseModel
from madcrow_events import *
class Address(BaseModel):
    town: str = ""
class Order(BaseEventContext):
    order_id: int
    address: Address = Address()
placed = madcrow_signals.signal("order_placed", context=Order)
"""

FIRST = """
from functools import wraps
from madcrow_events import *
def decorated(function):
    @wraps(function)
    def wrapper(*arguments, **context):
        return function(*arguments, **context)
    return wrapper
placed = madcrow_signals.signal("order_placed")
"""

HANDLERS = {
    "a function": """
@on_event("order_placed")
def greet(**context): return 1
""",
    "with an id": """
@on_event("order_placed", id="greeting")
def greet(**context): return 1
""",
    "a decorated function": """
@on_event("order_placed")
@decorated
def greet(**context): return 1
""",
    "a static method": """
class Handlers:
    @staticmethod
    def greet(**context): return 1
placed.subscribe(Handlers.greet)
""",
    "class methods": """
class Base:
    @classmethod
    def greet(cls, **context): return cls.value
class One(Base): value = 1
placed.subscribe(One.greet)
""",
    "a pattern": """
@on_event("order_*", id="greeting")
def greet(**context): return 1
""",
    "a group": """
group = HandlerGroup("greetings")
@group.on("order_placed", id="greeting")
def greet(**context): return 1
@group.on("order_*")
def ignore(**context): raise SystemError
group.register()
""",
    "other options": """
import random
@on_event("order_placed", priority=random.randrange(1_000_000), sender=placed)
def greet(**context): return 1
""",
}


@pytest.fixture(params=RUNS, ids=lambda kind: kind.__name__)
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    made: Run = request.param(tmp_path, monkeypatch)
    return made


def values() -> list[Any]:
    """Return what the handlers of an order return."""
    return [result.value for result in emit_event("order_placed", order_id=1).results]


@pytest.mark.guarantee("H7")
@pytest.mark.parametrize("kind", HANDLERS)
def test_a_handler_that_is_defined_again_runs_once(
    run: Run, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="madcrow_events")
    run(FIRST + HANDLERS[kind])
    assert not caplog.records or kind == "a group"
    for value in (2, 3):
        namespace = run(FIRST + HANDLERS[kind].replace("1", str(value)))
        assert values() == [value]
    assert "replaces its earlier version, because its module ran again" in caplog.text
    if "greet" in namespace:
        name = "order_*" if kind == "a pattern" else "order_placed"
        assert madcrow_signals.unsubscribe(name, namespace["greet"])
        assert values() == []


@pytest.mark.guarantee("H7")
@pytest.mark.parametrize(
    "source",
    [
        "@on_event('order_placed')\ndef _(**context): return 1\n" * 2,
        "for _ in range(2):\n    @on_event('order_placed')\n    def greet(**context): return 1\n",
        """
class A:
    @classmethod
    def greet(cls, **context): return 1
class B(A): pass
placed.subscribe(A.greet), placed.subscribe(B.greet)
""",
        """
from threading import Thread
@placed.on()
def greet(**context): return 1
def greet(**context): return 1
thread = Thread(target=placed.subscribe, args=(greet,))
thread.start(), thread.join()
""",
    ],
)
def test_two_of_one_execution_never_replace_each_other(run: Run, source: str) -> None:
    for _ in range(3):
        run(FIRST + source)
        assert values() == [1, 1]


@pytest.mark.guarantee("H7")
def test_what_may_be_there_more_than_once_is_kept(run: Run) -> None:
    """Of a lambda, nobody can tell which one of before it is."""
    for count in (1, 2):
        run(FIRST + "placed.subscribe(lambda **context: 1)")
        run(FIRST + "def make():\n    @placed.on()\n    def greet(): return 1\nmake()")
        assert values() == [1] * 2 * count


@pytest.mark.guarantee("H7")
def test_what_is_subscribed_once_more_is_not_defined_again(run: Run) -> None:
    """A function of an earlier cell, for one more sender: both subscriptions stay."""
    namespace = run(FIRST + HANDLERS["a decorated function"])
    run("other = 1")
    namespace["placed"].subscribe(namespace["greet"], sender="me")
    namespace["placed"].subscribe(namespace["decorated"](namespace["greet"]), sender="you")
    assert len(namespace["placed"].subscriptions) == 3


@pytest.mark.guarantee("H7")
def test_the_function_of_now_unsubscribes_that_of_before(run: Run) -> None:
    define = "def greet(**context): return 1\n"
    run(FIRST + define + "placed.subscribe(greet); on_event('order_*')(greet)")
    names = ["order_placed", "order_*", "order_placed"]
    end = f"ended = [madcrow_signals.unsubscribe(name, greet) for name in {names}]"
    assert run(FIRST + define + end)["ended"] == [True, True, False]
    assert values() == []


@pytest.mark.guarantee("H7")
def test_the_function_of_before_that_is_in_use_elsewhere_does_not_run_beside_that_of_now(
    run: Run,
) -> None:
    before = run(FIRST + HANDLERS["a function"])["greet"]
    run(FIRST + HANDLERS["a function"].replace("1", "2"))
    madcrow_signals.subscribe("order_placed", before)
    assert values() == [1]


def by_spec(path: Path) -> Any:
    spec: Any = importlib.util.spec_from_file_location("plugin", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def as_page(path: Path) -> Any:
    exec(path.read_text(), {"__name__": "__main__", "__file__": path})  # noqa: S102  # as tools do


def as_code(path: Path) -> Any:
    code = compile(path.read_text(), path, "exec", dont_inherit=True)
    exec(code, {"__name__": "plugin"})  # noqa: S102  # as tools do


def without_name(path: Path) -> Any:
    exec(path.read_text(), {})  # noqa: S102  # as tools do


@pytest.mark.guarantee("H7")
@pytest.mark.guarantee("N7")
@pytest.mark.parametrize("load", [by_spec, runpy.run_path, as_page, as_code, without_name])
def test_what_two_files_of_one_name_define_stays_two(
    tmp_path: Path, load: Callable[[Any], Any]
) -> None:
    for number in (1, 2):
        path = tmp_path / f"{number}.py"
        path.write_text(FIRST + HANDLERS["a function"].replace("1", str(number)))
        load(path)
    assert values() == [1, 2]
    path.write_text(MODEL.replace("order_placed", "order_sent"))
    load(path)
    other = path.rename(tmp_path / "other.py")
    with pytest.raises(SignalConflictError, match="declare it once"):
        load(other)


@pytest.mark.guarantee("H7")
def test_a_group_that_cannot_be_registered_replaces_nothing(run: Run) -> None:
    run(FIRST + HANDLERS["a group"])
    broken = HANDLERS["a group"].replace("order_*", "never_declared").replace("1", "2")
    with pytest.raises(UnknownEventError):
        run(FIRST + broken)
    assert values() == [1]


@pytest.mark.guarantee("N7")
def test_a_model_that_is_declared_again_takes_the_place_of_the_first(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    before = run(MODEL)
    old, placed = before["Order"], before["placed"]
    seen: list[Any] = []

    def by_context(context: Any) -> None:
        seen.append(context)

    by_context.__annotations__["context"] = old
    placed.subscribe(by_context)
    new = run(MODEL.replace("order_id: int", "order_id: int; kind: str = 'new'"))["Order"]
    assert madcrow_signals["order_placed"] is placed
    assert placed.context_model is new is not old

    def by_emission(emission: Any) -> None:
        seen.append(emission.context)

    def with_sender(sender: Any, context: Any) -> None:
        seen.append(context)

    by_emission.__annotations__["emission"] = Emission[old]
    with_sender.__annotations__["context"] = old
    placed.subscribe(by_emission)
    placed.subscribe(with_sender)
    dispatcher = get_event_dispatcher()
    town = old(order_id=1, address={"town": "Rome"})
    for emit in (
        lambda: dispatcher.emit_typed(placed, new(order_id=1)),
        lambda: dispatcher.emit_typed(placed, town),
        lambda: dispatcher.emit_typed(placed, old(order_id=2)),
        lambda: dispatcher.emit("order_placed", order_id=1),
        lambda: dispatcher.emit_typed(
            placed, GenericEventContext(event_type="order_placed", data={"order_id": 1})
        ),
    ):
        assert emit().ok
        assert [type(context) for context in seen] == [new] * 3
        seen.clear()
    assert dispatcher.emit_typed(placed, town).context.address.town == "Rome"
    derived = type("Derived", (old,), {"__annotations__": {"more": int}})
    assert type(dispatcher.emit_typed(placed, derived(order_id=1, more=1)).context) is new
    told = [it.getMessage() for it in caplog.records if "import it again" in it.getMessage()]
    assert len(told) == 1
    assert "order_placed is given" in told[0]
    assert "Order as it was before its module ran again" in told[0]


@pytest.mark.guarantee("N7")
def test_a_context_of_before_is_taken_by_aliases_and_kept_as_it_is(run: Run) -> None:
    """A model may take those only, and change what its validators are given."""
    source = """
from pydantic import model_validator
from pydantic.alias_generators import to_camel
from madcrow_events import *
class Order(BaseEventContext, alias_generator=to_camel):
    model_config = {"populate_by_name": False, "validate_by_name": False}
    order_id: int
    old_kind: str = ""
    @model_validator(mode="before")
    @classmethod
    def forget(cls, values):
        values.pop("oldKind", None)
        return values
madcrow_signals.signal("order_placed", context=Order)
"""
    old = run(source)["Order"](orderId=1)
    new = run(source)["Order"]
    context = get_event_dispatcher().emit_typed("order_placed", old).context
    assert (type(context), context.order_id, context.timestamp) == (new, 1, old.timestamp)
    assert old.old_kind == ""


@pytest.mark.guarantee("N7")
async def test_a_context_of_before_that_does_not_fit_is_refused(run: Run) -> None:
    old = run(MODEL)["Order"]
    run(MODEL.replace("order_id: int", "order_id: int; must: str"))
    dispatcher = get_event_dispatcher()
    with pytest.raises(ContextValidationError, match="must: missing"):
        dispatcher.emit_typed("order_placed", old(order_id=1))
    with pytest.raises(ContextValidationError, match="must: missing"):
        await dispatcher.emit_typed_async("order_placed", old(order_id=1))


@pytest.mark.guarantee("N7")
@pytest.mark.parametrize("options", [{}, {"background": True}])
def test_a_context_that_is_held_back_while_the_module_runs_again_becomes_a_new_one(
    run: Run, options: Any
) -> None:
    old = run(MODEL)["Order"]
    dispatcher, seen = get_event_dispatcher(), list[Any]()

    def by_context(context: Any) -> None:
        seen.append(type(context))

    by_context.__annotations__["context"] = old
    madcrow_signals["order_placed"].subscribe(by_context, **options)
    with dispatcher.deferred():
        dispatcher.emit_typed("order_placed", old(order_id=1))
        new = run(MODEL)["Order"]
    assert dispatcher.drain(10)
    assert seen == [new]
    with pytest.raises(ContextValidationError, match="must: missing"), dispatcher.deferred():
        emission = dispatcher.emit_typed("order_placed", new(order_id=1))
        run(MODEL.replace("order_id: int", "order_id: int; must: str"))
    assert emission.state == "dropped"


@pytest.mark.guarantee("N7")
def test_a_class_of_before_that_is_declared_again_is_told_of(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    old = run(MODEL)["Order"]
    new = run(MODEL)["Order"]
    for _ in range(2):
        assert madcrow_signals.signal("order_placed", context=old).context_model is new
    assert caplog.text.count("import it again") == 1


@pytest.mark.guarantee("N7")
def test_only_contexts_of_the_class_of_before_are_taken(run: Run) -> None:
    old = run(MODEL)["Order"]
    run(MODEL)
    other = type("Order", (BaseEventContext,), {"__module__": old.__module__})
    with pytest.raises(ContextTypeError, match=r"carries (\S+\.Order) \(another class\), not \1: "):
        get_event_dispatcher().emit_typed("order_placed", other())

    def handle(context: Any) -> None: ...

    handle.__annotations__["context"] = other
    with pytest.raises(
        HandlerSignatureError, match=r"takes (\S+\.Order) in .*carries \1 \(another"
    ):
        madcrow_signals.subscribe("order_placed", handle)


@pytest.mark.guarantee("N7")
def test_an_isolated_block_gives_the_model_back(run: Run) -> None:
    before = run(MODEL)
    with madcrow_signals.isolated():
        assert run(MODEL)["placed"].context_model is not before["Order"]
    assert before["placed"].context_model is before["Order"]
    assert get_event_dispatcher().emit_typed("order_placed", before["Order"](order_id=1)).ok


@pytest.mark.guarantee("N7")
@pytest.mark.parametrize(
    "define",
    [
        "class Order(BaseEventContext): order_id: int\n",
        "Order = create_model('Order', __base__=BaseEventContext, __module__=__name__)\n",
        "def make():\n    class Order(BaseEventContext): pass\n    return Order\nOrder = make()\n",
    ],
    ids=["a class", "create_model", "a class factory"],
)
def test_two_models_of_one_execution_are_a_conflict(run: Run, define: str) -> None:
    declare = "from madcrow_events import *\nfrom pydantic import create_model\n"
    declare += define + "madcrow_signals.signal('thing', context=Order)\n"
    with pytest.raises(SignalConflictError, match="declare it once"):
        run(declare + declare)
    if "make" in define:
        with pytest.raises(SignalConflictError, match="declare it once"):
            run(declare)
    else:
        run(declare)
    with pytest.raises(SignalConflictError, match="declare it once"):
        run(declare.replace("Order", "Renamed"))


@pytest.mark.guarantee("N7")
def test_a_model_that_is_no_context_takes_no_place(run: Run) -> None:
    model = run(MODEL)["Order"]
    with pytest.raises(ContextModelError, match="sender"):
        run(MODEL.replace("order_id: int", "sender: int"))
    assert madcrow_signals["order_placed"].context_model is model


@pytest.mark.guarantee("H7")
@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")) and sys.version_info < (3, 14),
    reason="without the GIL, Python 3.13 frees no function once a thread has been started",
)
def test_a_handler_held_weakly_goes_away_with_its_module(run: Run) -> None:
    """What is kept of an execution keeps none of it alive."""
    source = "@on_event('order_placed', weak=True)\ndef greet(**context): return 1\n"
    run(FIRST + source)
    run(FIRST + source)
    assert values() == [1]
    run(FIRST + "greet = None")
    gc.collect()
    assert values() == []


class Proxy:
    """Has lost what it stands for."""

    @property
    def __self__(self) -> Any:
        raise RuntimeError

    def __call__(self, **context: Any) -> None: ...


def of_a_module_that_is_gone() -> None: ...


def in_a_circle() -> None: ...


of_a_module_that_is_gone.__module__ = "no_such_module"
in_a_circle.__wrapped__ = in_a_circle  # type: ignore[attr-defined]


@pytest.mark.guarantee("H7")
@pytest.mark.parametrize("handler", [Proxy(), of_a_module_that_is_gone, print])
def test_what_cannot_be_found_again_is_subscribed_all_the_same(
    signals: SignalRegistry, handler: Any
) -> None:
    assert signals.signal("ping").subscribe(handler).active
    assert definition_of(in_a_circle) == (__name__, "in_a_circle", in_a_circle)
