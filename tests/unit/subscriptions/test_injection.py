"""Parameters that a wrapper injects are its own affair (H10)."""

# No `from __future__ import annotations`: the markers in them are made in each test.

from collections.abc import Callable
from typing import Annotated, Any

import pytest

from madcrow_events import (
    BaseEventContext,
    Batch,
    EventDispatcher,
    HandlerSignatureError,
    SignalRegistry,
)
from support.injecting import Injecting, Mailer

PACKAGES = {
    "fast_depends": ("fast_depends.use", "Dependant"),
    "dishka": ("dishka.integrations", "_FromComponent"),
    "dependency_injector": ("dependency_injector.wiring", "_Marker"),
}


class Order(BaseEventContext):
    number: int


@pytest.fixture(params=PACKAGES)
def injecting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Injecting:
    """Return one of the packages that inject."""
    return Injecting(monkeypatch, *PACKAGES[request.param])


@pytest.fixture
def order(signals: SignalRegistry) -> Any:
    """Return an event with a model."""
    return signals.signal("order", context=Order)


def handlers(marker: Any) -> list[Callable[..., Any]]:
    """Return handlers of all shapes, each with an injected parameter."""

    def with_default(sender: Any, mailer: Any = marker, **context: Any) -> Any:
        return context["number"], mailer

    def annotated(context: Order, mailer: Annotated[Mailer, marker]) -> Any:
        return context.number, mailer

    def in_front(mailer: Annotated[Mailer, marker], context: Order) -> Any:
        return context.number, mailer

    def by_name(mailer: Annotated[Mailer, marker], number: int, *more: Any) -> Any:
        assert not more
        return number, mailer

    def by_keyword(number: int, *, mailer: Any = marker) -> Any:
        return number, mailer

    return [with_default, annotated, in_front, by_name, by_keyword]


@pytest.mark.guarantee("H10")
def test_an_injected_parameter_is_left_to_the_wrapper(
    order: Any, dispatcher: EventDispatcher, injecting: Injecting
) -> None:
    for handler in handlers(injecting.depends()):
        order.subscribe(injecting.inject(handler))
    emission = dispatcher.emit("order", number=3)
    emission.raise_for_failures()
    assert len(emission.results) == 5
    for result in emission.results:
        number, mailer = result.value
        assert number == 3
        assert isinstance(mailer, Mailer)


@pytest.mark.guarantee("H10")
def test_what_an_emitter_calls_like_it_is_not_injected(
    signals: SignalRegistry, dispatcher: EventDispatcher, injecting: Injecting
) -> None:
    signals.signal("anything").subscribe(injecting.inject(handlers(injecting.depends())[0]))
    (result,) = dispatcher.emit("anything", number=3, mailer="mine").results
    assert isinstance(result.value[1], Mailer)


@pytest.mark.guarantee("H10")
def test_a_handler_for_batches_may_have_an_injected_parameter(
    order: Any, dispatcher: EventDispatcher, injecting: Injecting
) -> None:
    def handler(contexts: list[Order], mailer: Annotated[Mailer, injecting.depends()]) -> Any:
        return contexts[0].number, mailer

    order.subscribe(injecting.inject(handler), batch=Batch(max_size=1))
    emission = dispatcher.emit("order", number=3)
    assert emission.wait(5)
    number, mailer = emission.results[0].value
    assert number == 3
    assert isinstance(mailer, Mailer)


@pytest.mark.guarantee("H10")
def test_a_marker_that_nobody_resolves_is_refused_with_what_to_write(
    order: Any, injecting: Injecting
) -> None:
    for handler in handlers(injecting.depends()):
        with pytest.raises(
            HandlerSignatureError,
            match=f"decorate the handler with inject of {injecting.package}, below what subscribes",
        ):
            order.subscribe(handler)


@pytest.mark.guarantee("H10")
def test_depends_of_fastapi_is_refused_unless_somebody_resolves_it(
    order: Any,
    dispatcher: EventDispatcher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fastapi = Injecting(monkeypatch, "fastapi.params", "Depends")
    fix = r"takes 'mailer' from fastapi.Depends, .*: call what it depends on in the handler"
    for handler in handlers(fastapi.depends()):
        with pytest.raises(HandlerSignatureError, match=fix):
            order.subscribe(handler)
    injector = Injecting(monkeypatch, *PACKAGES["dependency_injector"])
    extension = Injecting(monkeypatch, "fastapi_injectable.decorator", "Depends")
    around = handlers(fastapi.depends(injector.depends()))[0]
    order.subscribe(injector.inject(around))
    order.subscribe(extension.inject(handlers(fastapi.depends())[0]))
    emission = dispatcher.emit("order", number=3)
    assert [type(result.value[1]) for result in emission.results] == [Mailer, Mailer]
