"""Functions of one shape are read once, and each handler still gets what it asks for."""

from __future__ import annotations

import functools
import gc
import inspect
import pickle
import sys
import sysconfig
import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    Emission,
    EventDispatcher,
    EventSignal,
    HandlerSignatureError,
    SignalRegistry,
)
from madcrow_events.models import kept_with
from support.inside import remembering_shapes


class OrderPlaced(BaseEventContext):
    order_id: int


class OrderShipped(BaseEventContext):
    order_id: int


@pytest.fixture
def signals() -> SignalRegistry:
    return SignalRegistry()


@pytest.fixture
def placed(signals: SignalRegistry) -> EventSignal[OrderPlaced]:
    return signals.signal("order_placed", context=OrderPlaced)


def spec_of(signal: EventSignal[Any], handler: Callable[..., Any]) -> Any:
    with signal.subscribe(handler) as subscription:
        return subscription._call_spec


def made(source: str, **names: object) -> Any:
    """Return the function `handle` of a module of its own."""
    scope = {"__name__": "made", **names}
    exec(compile(source, "made", "exec", dont_inherit=True), scope)  # noqa: S102  # as another module would define it
    return scope["handle"]


def got(signal: EventSignal[Any], handler: Callable[..., Any]) -> Any:
    """Return what a handler returns for an emission."""
    registry = signal._registry
    assert registry is not None
    with signal.subscribe(handler):
        emission = EventDispatcher(registry, on_error="raise").emit(signal, order_id=7)
    (result,) = emission.results
    return result.value


@pytest.mark.parametrize(
    "source",
    [
        "def handle(): return 1",
        "def handle(sender, **context): return 1",
        "def handle(order: OrderPlaced): return 1",
        "def handle(order: 'OrderPlaced'): return 1",
        "def handle(emission: Emission): return 1",
        "def handle(order_id: int, note: str | None = None): return 1",
        "def handle(order_id: 'int'): return 1",
        "def handle(*senders, **context): return 1",
        "def handle(order_id, *, note='none'): return 1",
        "async def handle(order: OrderPlaced): return 1",
    ],
)
def test_functions_of_one_shape_share_their_call_spec(
    placed: EventSignal[OrderPlaced], source: str
) -> None:
    one, other = (made(source, OrderPlaced=OrderPlaced, Emission=Emission) for _ in range(2))

    assert spec_of(placed, one) is spec_of(placed, other)


@pytest.mark.parametrize(
    "source",
    [
        "def handle(order: 'list[int] | None' = None): return 1",
        "def handle(emission: 'Emission[OrderPlaced]'): return 1",
        "def handle(order_id, note=marker): return 1",
        "def handle(order_id: 'unknown'): return 1",
        "def handle(order_id: 'id'): return 1",
        "def handle(order_id: int | list): return 1",
    ],
)
def test_a_function_whose_shape_is_not_plain_is_read_each_time(
    placed: EventSignal[OrderPlaced], source: str
) -> None:
    handler = made(source, OrderPlaced=OrderPlaced, Emission=Emission, marker=[])

    assert spec_of(placed, handler) is not spec_of(placed, handler)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type parameters came with 3.12")
def test_a_type_parameter_is_no_name_of_the_module(placed: EventSignal[OrderPlaced]) -> None:
    source = "def handle[Order: OrderPlaced](order: Order): return order"
    handler = made(source, OrderPlaced=OrderPlaced, Order=int)

    assert got(placed, handler).order_id == 7


def test_an_annotation_that_cannot_be_evaluated_is_left_to_the_reader(
    placed: EventSignal[OrderPlaced],
) -> None:
    """Until Python 3.13, the function itself cannot be made."""
    source = "def handle(order_id: Unknown): return order_id"
    if sys.version_info >= (3, 14):
        assert got(placed, made(source)) == 7
    else:
        with pytest.raises(NameError):
            made(source)


def test_parameters_of_other_kinds_are_another_shape(placed: EventSignal[OrderPlaced]) -> None:
    """All of these have a function that names `sender` and `order_id`."""
    sources = {
        "def handle(sender, order_id): return sender, order_id": (placed, 7),
        "def handle(sender, /, order_id): return sender, order_id": (placed, 7),
        "def handle(sender, *, order_id): return sender, order_id": (placed, 7),
        "def handle(sender, order_id=3): return sender, order_id": (placed, 7),
        "def handle(sender, *, order_id=3): return sender, order_id": (placed, 7),
        "def handle(sender=5, order_id=3): return sender, order_id": (placed, 7),
        "def handle(sender, **order_id): return sender, order_id['order_id']": (placed, 7),
    }

    for _ in range(2):
        for source, returned in sources.items():
            assert got(placed, made(source)) == returned, source


def test_a_method_has_another_shape_than_its_function(placed: EventSignal[OrderPlaced]) -> None:
    handler = made("def handle(sender, order_id=None): return sender, order_id")
    method = types.MethodType(handler, "the object")

    for _ in range(2):
        assert got(placed, handler) == (placed, 7)
        assert got(placed, method) == ("the object", 7)


def test_a_name_may_come_to_mean_another_class(signals: SignalRegistry) -> None:
    """As in a notebook, where a cell that defines the class runs again."""
    signal = signals.signal("order_placed")
    handler = made("def handle(order: 'Order'): return type(order)", Order=OrderPlaced)
    assert got(signal, handler) is OrderPlaced

    handler.__globals__["Order"] = OrderShipped

    assert got(signal, handler) is OrderShipped


def test_what_one_event_takes_another_still_refuses(
    signals: SignalRegistry, placed: EventSignal[OrderPlaced]
) -> None:
    class OrderPacked(BaseEventContext):
        box: str

    packed = signals.signal("order_packed", context=OrderPacked)

    for _ in range(2):
        with placed.subscribe(lambda order_id: order_id):  # type: ignore[call-overload]
            pass
        with pytest.raises(HandlerSignatureError):
            packed.subscribe(lambda order_id: order_id)  # type: ignore[call-overload]
        with pytest.raises(HandlerSignatureError):
            signals.subscribe("order_*", lambda order_id: order_id)


def test_a_changed_function_is_read_again(placed: EventSignal[OrderPlaced]) -> None:
    handler = made("def handle(order_id): return order_id")
    assert got(placed, handler) == 7

    handler.__code__ = (lambda sender, **context: (sender, context)).__code__

    assert got(placed, handler) == (placed, {"order_id": 7})


def test_a_decorated_function_is_read_through_its_decorator(
    placed: EventSignal[OrderPlaced],
) -> None:
    def count(*_arguments: object, **_keywords: object) -> tuple[int, int]:
        return len(_arguments), len(_keywords)

    assert got(placed, count) == (1, 1)

    functools.update_wrapper(count, made("def handle(order_id, /, *, note=1): ..."))
    with pytest.raises(HandlerSignatureError):
        placed.subscribe(count)


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")) and sys.version_info < (3, 14),
    reason="without the GIL, Python 3.13 frees no function once a thread has been started",
)
def test_nothing_is_kept_alive(signals: SignalRegistry) -> None:
    def subscribed() -> weakref.ref[type[BaseEventContext]]:
        class Order(BaseEventContext):
            order_id: int

            @staticmethod
            def handle(order: BaseEventContext) -> Any:
                return order

        Order.handle.__annotations__["order"] = Order
        with signals.signal("order_seen").subscribe(Order.handle):
            pass
        return weakref.ref(Order)

    order = subscribed()
    gc.collect()

    assert order() is None


def test_two_models_that_are_no_relatives_keep_each_other_alive_in_no_shape(
    signals: SignalRegistry,
) -> None:
    source = "def handle(order: One, other: Other = None): return order"
    handler = made(source, One=OrderPlaced, Other=OrderShipped)
    signal = signals.signal("order_seen")

    assert spec_of(signal, handler) is not spec_of(signal, handler)


def test_so_many_shapes_are_remembered_and_no_more(
    placed: EventSignal[OrderPlaced], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembering_shapes, "MOST_SHAPES", 3)
    first = made("def handle(order_id, default_of_0=0): return order_id")
    spec = spec_of(placed, first)

    for number in range(1, 5):
        spec_of(placed, made(f"def handle(order_id, default_of_{number}=0): return order_id"))

    assert spec_of(placed, first) is not spec
    assert got(placed, first) == 7


def test_annotations_that_cannot_be_evaluated_are_no_shape(
    placed: EventSignal[OrderPlaced], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> object:
        raise NameError

    monkeypatch.setattr(remembering_shapes, "_meaning_of", failing)

    assert got(placed, made("def handle(order_id: int): return order_id")) == 7


def test_an_interrupt_while_annotations_are_evaluated_goes_through(
    placed: EventSignal[OrderPlaced], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Limit(Exception):
        pass

    def interrupted(*_: object) -> object:
        raise Limit

    monkeypatch.setattr(remembering_shapes, "_meaning_of", interrupted)
    monkeypatch.setattr(remembering_shapes, "is_interrupt", lambda error: type(error) is Limit)

    with pytest.raises(Limit):
        placed.subscribe(made("def handle(order_id: int): return order_id"))


def test_a_class_made_again_from_the_attributes_of_another_has_a_memory_of_its_own() -> None:
    class Original(BaseEventContext):
        number: int

    def handler(number: int) -> None: ...

    SignalRegistry().signal("original", context=Original).subscribe(handler)
    # The older pydantic keeps there what it refuses to take from there.
    attributes = {it: value for it, value in vars(Original).items() if not it.startswith("model_")}
    copied: Any = type("Copied", (BaseEventContext,), attributes)
    assert kept_with(copied) is not kept_with(Original)
    assert kept_with(copied) is kept_with(copied)


def test_a_class_is_sent_to_another_process_without_what_is_remembered_of_it(
    placed: EventSignal[OrderPlaced],
) -> None:
    """By tools that pickle a class by value, with all of its attributes."""
    spec_of(placed, made("def handle(order_id): return order_id"))
    assert kept_with(OrderPlaced)
    sent = pickle.loads(pickle.dumps(vars(OrderPlaced)["__madcrow_kept__"]))  # noqa: S301  # made here
    assert (sent.model, sent.things) == (None, {})


def test_what_a_function_says_of_itself_counts_whatever_its_globals_are(
    placed: EventSignal[OrderPlaced],
) -> None:
    class Globals(dict[str, Any]):
        pass

    variables = Globals(__name__="made")
    exec("def handle(*given, **named): return given, named", variables)  # noqa: S102  # as a tool may
    handle = variables["handle"]
    handle.__signature__ = inspect.signature(lambda order_id: None)
    assert got(placed, handle) == ((), {"order_id": 7})


def test_a_function_of_a_known_shape_is_given_no_dictionary(
    placed: EventSignal[OrderPlaced],
) -> None:
    """It would take 64 bytes, as long as the function lives. The annotations are read."""
    known, handler = (made("def handle(order_id): return order_id") for _ in range(2))
    spec_of(placed, known)

    spec_of(placed, handler)

    assert handler.__annotations__ == {}
    before = len(gc.get_referents(handler))
    assert vars(handler) == {}
    assert len(gc.get_referents(handler)) == before + 1


def test_a_mark_is_seen_beside_other_dictionaries(placed: EventSignal[OrderPlaced]) -> None:
    """Annotations that were read, and defaults of keywords, are dictionaries, too."""
    source = "def handle(order_id: int, *, note: str = ''): return order_id"
    plain, marked = made(source), made(source)
    marked.__wrapped__ = made(source)

    assert got(placed, plain) == got(placed, plain) == 7
    assert spec_of(placed, marked) is not spec_of(placed, plain)
