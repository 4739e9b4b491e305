"""Each line that uses an old name is told once, wherever it stands (N8)."""

from __future__ import annotations

import asyncio
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from madcrow_events import (
    EventDispatcher,
    EventSignal,
    GenericEventContext,
    HandlerGroup,
    SignalRegistry,
    emit_event,
    emit_event_async,
    madcrow_signals,
    on_event,
    register_handler,
    unregister_handler,
)
from madcrow_events.testing import fake_events, record_events

pytestmark = pytest.mark.guarantee("N8")

HERE = __file__


@pytest.fixture
def placed(signals: SignalRegistry) -> EventSignal[Any]:
    return signals.signal("order_placed", formerly="order_made")


@contextmanager
def told_of(*lines: int) -> Iterator[None]:
    """Expect exactly one warning for each of these lines of this file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert [(it.filename, it.lineno) for it in caught] == [(HERE, line) for line in lines]
    for it in caught:
        assert it.category is DeprecationWarning
        assert str(it.message) == "the event order_made is called order_placed now: use that name"


def here() -> int:
    """Return the number of the line that calls this."""
    return sys._getframe(1).f_lineno


def do_nothing(**context: object) -> None: ...


def line_of(function: Callable[..., Any]) -> int:
    return function.__code__.co_firstlineno


USES: list[Callable[[SignalRegistry], Any]] = [
    lambda it: EventDispatcher(it).emit("order_made"),
    lambda it: EventDispatcher(it).emit("order-made", "a sender", order_id=1),
    lambda it: EventDispatcher(it).emit_typed("order_made", generic()),
    lambda it: asyncio.run(EventDispatcher(it).emit_async("order_made")),
    lambda it: asyncio.run(EventDispatcher(it).emit_typed_async("order_made", generic())),
    lambda it: EventDispatcher(it).emit_typed("order_placed", generic("order_made")),
    lambda it: it["order_made"],
    lambda it: it.resolve("order-made"),
    lambda it: it.get("order_made"),
    lambda it: "order_made" in it,
    lambda it: it.pop("order_made"),
    lambda it: it.__delitem__("order_made"),
    lambda it: it.signal("order_made"),
    lambda it: it.subscribe("order_made", do_nothing),
    lambda it: it.unsubscribe("order_made", do_nothing),
    lambda it: register_handler("order_made", do_nothing, signals=it),
    lambda it: unregister_handler("order_made", do_nothing, signals=it),
    lambda it: on_event("order_made", signals=it)(do_nothing),
    lambda it: record_events("order_made", signals=it).__enter__().close(),
    lambda it: fake_events("order_made", signals=it).__enter__().close(),
    lambda it: recorded(it).assert_emitted("order_made"),
    lambda it: recorded(it).assert_emitted("order_made", times=1),
    lambda it: recorded(it).assert_not_emitted("order_made", order_id=2),
    lambda it: recorded(it, do_nothing).assert_handled_by("order_made", do_nothing),
    lambda it: recorded(it).wait_for("order_made"),
    lambda it: asyncio.run(recorded(it).wait_for_async("order_made")),
]


def generic(event_type: str = "order_placed") -> GenericEventContext:
    return GenericEventContext(event_type=event_type)


def recorded(signals: SignalRegistry, *handlers: Any) -> Any:
    """Return a recorder that has heard of one order."""
    for handler in handlers:
        signals.subscribe("order_placed", handler)
    with record_events(signals=signals) as recorder:
        EventDispatcher(signals).emit("order_placed", order_id=1)
    return recorder


@pytest.mark.parametrize("use", USES)
def test_each_way_to_use_an_old_name_is_told_at_the_line_that_uses_it(
    signals: SignalRegistry, placed: EventSignal[Any], use: Callable[[SignalRegistry], Any]
) -> None:
    with told_of(line_of(use)):
        use(signals)


def test_the_default_dispatcher_and_registry_tell_the_callers_line() -> None:
    madcrow_signals.signal("order_placed", formerly="order_made")
    with told_of(here() + 1):
        emit_event("order_made")
    with told_of(here() + 1):
        asyncio.run(emit_event_async("order_made"))
    with told_of(here() + 2):

        @on_event("order_made")
        def handler(sender: Any, **context: Any) -> None: ...


def test_a_line_is_told_once_however_often_it_runs(
    signals: SignalRegistry, placed: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    with told_of(here() + 2, here() + 3):
        for _ in range(3):
            dispatcher.emit("order_made")
            dispatcher.emit("order-made")


def test_the_new_name_and_patterns_tell_nothing(
    signals: SignalRegistry, placed: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    with told_of():
        signals.subscribe("order_ma*", do_nothing)
        dispatcher.emit("order_placed")
        dispatcher.emit(placed)
        signals.unsubscribe("order_ma*", do_nothing)
        signals.signal("order_placed", formerly="order_made")
        with record_events("order_m*", signals=signals) as events:
            dispatcher.emit("order_placed")
        events.assert_emitted("order_placed")


def test_two_old_names_in_one_line_are_told_of_both(
    signals: SignalRegistry, placed: EventSignal[Any]
) -> None:
    signals.signal("order_sent", formerly="sent")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _ = signals["sent"], signals["order_made"]
    assert len(caught) == 2


# Decorators


def test_a_decorator_is_told_where_it_stands(
    signals: SignalRegistry, placed: EventSignal[Any]
) -> None:
    with told_of(here() + 2):

        @on_event(
            "order_made",
            signals=signals,
        )
        def handler(sender: Any, **context: Any) -> None: ...

        on_order = handler
    with told_of(here() + 1):
        decorate = on_event("order_made", signals=signals)
    with told_of():
        decorate(do_nothing)
    assert {it.handler for it in placed.subscriptions} == {on_order, do_nothing}


def test_a_group_is_told_where_it_was_declared_not_where_it_is_registered(
    signals: SignalRegistry, placed: EventSignal[Any]
) -> None:
    group = HandlerGroup("shop")

    @group.on("order_made")
    def handler(sender: Any, **context: Any) -> None: ...

    group.signal("order_made")
    line = here() - 1
    group.on(SignalRegistry().signal("order_made"))(do_nothing)
    with told_of(line, line + 2, line - 3):
        group.register(signals)
    with told_of():
        group.register(signals)


# Async, tasks and threads


async def test_an_await_is_told_where_it_stands(
    signals: SignalRegistry, placed: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def deeper() -> None:
        await dispatcher.emit_async("order_made")

    with told_of(here() - 2):
        await deeper()
    with told_of(here() + 1):
        async with record_events("order_made", signals=signals) as events:
            await dispatcher.emit_async("order_placed")
    with told_of(here() + 1):
        await events.wait_for_async("order_made")


def test_a_task_is_told_where_its_loop_was_started(
    signals: SignalRegistry, placed: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Nobody knows which line has made it."""

    async def main() -> None:
        await asyncio.gather(*(dispatcher.emit_async("order_made") for _ in range(3)))

    with told_of(here() + 1):
        asyncio.run(main())


def test_a_thread_of_a_pool_is_told_too(
    signals: SignalRegistry, placed: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    def work() -> None:
        dispatcher.emit("order_made")

    with told_of(line_of(work) + 1), ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


@pytest.mark.usefixtures("threads_switch_often")
def test_threads_that_use_a_line_at_once_are_told_once(
    signals: SignalRegistry, placed: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    ready = threading.Barrier(8)

    def work() -> None:
        ready.wait()
        dispatcher.emit("order_made")

    threads = [threading.Thread(target=work) for _ in range(8)]
    with told_of(line_of(work) + 2):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


# Filters


def test_a_warning_that_is_made_an_error_changes_nothing_and_comes_again(
    signals: SignalRegistry, placed: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    calls: list[int] = []
    placed.subscribe(lambda: calls.append(1))
    for _ in range(2):
        with pytest.raises(DeprecationWarning, match="use that name"):
            dispatcher.emit("order_made")
    group = HandlerGroup("shop")
    group.signal("own", formerly="own_formerly")
    group.on("order_placed")(do_nothing)
    group.on("order_made")(do_nothing)
    with pytest.raises(DeprecationWarning):
        group.register(signals)
    with pytest.raises(DeprecationWarning):
        signals.signal("order_made", formerly="older")
    assert not calls
    assert list(signals) == ["order_placed"]
    assert placed.formerly == ("order_made",)
    assert len(placed.subscriptions) == 1


def test_a_filter_may_choose_by_module(
    signals: SignalRegistry, placed: EventSignal[Any], tmp_path: Path
) -> None:
    """As filters of Python do, which show such warnings in `__main__` only, unless told to."""
    path = tmp_path / "shop.py"
    path.write_text("\n\nemit('order_made')")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", module="shop")
        for module in ("shop", "other"):
            names = {"__name__": module, "emit": EventDispatcher(signals).emit}
            code = compile(path.read_text(), f"{path}-{module}", "exec")
            exec(code, names)  # noqa: S102  # as an import does
    assert [(it.filename, it.lineno) for it in caught] == [(f"{path}-shop", 3)]


# Isolation


def test_an_isolated_block_is_told_anew(
    signals: SignalRegistry, placed: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Each test is told of the lines that it runs, whatever ran before."""

    def use() -> None:
        dispatcher.emit("order_made")

    line = line_of(use) + 1
    with told_of(line):
        use()
    for _ in range(2):
        with signals.isolated(), told_of(line):
            use()
            use()
    with told_of():
        use()


def test_plugins_are_told_at_their_own_lines(
    signals: SignalRegistry, placed: EventSignal[Any], tmp_path: Path
) -> None:
    path = tmp_path / "acme.py"
    source = """
        from madcrow_events import HandlerGroup
        group = HandlerGroup("acme")
        @group.on("order_made")
        def handler(): ...
        """
    path.write_text(textwrap.dedent(source))
    names: dict[str, Any] = {"__name__": "acme"}
    exec(compile(path.read_text(), str(path), "exec"), names)  # noqa: S102  # the same
    with pytest.warns(DeprecationWarning, match="order_made is called") as caught:
        names["group"].register(signals)
    assert [(it.filename, it.lineno) for it in caught] == [(str(path), 4)]
