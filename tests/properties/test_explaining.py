"""What `explain` says is what an emission then does (X1).

Subscriptions of every kind are drawn, and an emission. `explain` is asked, the event is emitted
with the same sender and context, and what was called is compared with what was said.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import event as note
from hypothesis import given, settings
from hypothesis import strategies as st

from madcrow_events import (
    ANY,
    BaseEventContext,
    Batch,
    Emission,
    EventDispatcher,
    HandlerGroup,
    SignalRegistry,
    event_scope,
)
from madcrow_events.signals import Explanation
from madcrow_events.testing.recorder import fake_events

pytestmark = pytest.mark.guarantee("X1")

EVENT, OTHER = "thing_happened", "other"
PATTERNS = ["thing_*", "*", "*_happened", "oth*", "orders_*"]
SENDERS = ["a", "b", "0", "False", "me", "None", "the signal"]
MODES = {"later": "background"}
LIMIT = 20  # seconds


class Countable(BaseEventContext):
    count: int


class Thing(Countable):
    flag: bool = True


def refuse(context: Mapping[str, Any]) -> bool:
    raise ValueError


WHENS: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "yes": lambda context: True,
    "no": lambda context: 0,
    "flag": lambda context: context["flag"],
    "raises": refuse,
}


@dataclass
class Drawn:
    """One subscription, as it is drawn."""

    target: str | type[Countable] = EVENT
    takes: str = "keywords"
    mode: str = "inline"
    sender: str | None = None
    when: str | None = None
    priority: int = 0
    once: bool = False
    by: str = "subscribe"
    end: str | None = None

    @property
    def needs_no_field(self) -> bool:
        return self.by in ("method", "twice") or self.takes in ("keywords", "nothing", "emission")


@st.composite
def subscriptions(draw: st.DrawFn) -> Drawn:
    target = draw(st.sampled_from([EVENT] * 6 + [*PATTERNS, Countable, Thing]))
    takes = ["keywords", "nothing", "emission"]
    if isinstance(target, str):
        takes += ["any model"]
    if target in (EVENT, Thing):
        takes += ["name", "model", "request_id"]
    drawn = Drawn(
        target,
        draw(st.sampled_from(takes)),
        draw(st.sampled_from(["inline"] * 3 + ["awaited", "background", "later", "batch"])),
        draw(st.sampled_from([None] * 6 + [*SENDERS])),
        draw(st.sampled_from([None] * 4 + [*WHENS])),
        draw(st.integers(-1, 1)),
        draw(st.booleans()),
        draw(st.sampled_from(["subscribe"] * 3 + ["group", "method", "connect"])),
        draw(st.sampled_from([None] * 6 + ["cancelled", "collected"])),
    )
    drawn.once = drawn.once and drawn.mode != "batch"
    if drawn.by == "connect":  # which has no options
        by = "connect" if drawn.sender is None else draw(st.sampled_from(["connect", "twice"]))
        drawn = Drawn(EVENT, "keywords", "inline", drawn.sender, by=by, end=drawn.end)
    if drawn.by != "method" and drawn.end == "collected":
        drawn.end = None
    return drawn


@dataclass
class Emitting:
    """The emission that is asked about, and what is around it."""

    sender: str | None
    context: dict[str, Any]
    block: str | None
    has_scope: bool
    is_async: bool
    has_model: bool
    comes_again: bool
    is_typed: bool

    @property
    def model(self) -> Thing | None:
        """The context as a model, if it is to be one and fits."""
        fits = self.has_model and self.context.get("count") == 1
        return Thing(**self.context) if fits and self.is_typed else None


@st.composite
def emissions(draw: st.DrawFn) -> Emitting:
    context = st.fixed_dictionaries(
        {"flag": st.booleans()},
        optional={"count": st.sampled_from([1, "x"]), "request_id": st.just("r")},
    )
    return Emitting(
        draw(st.sampled_from([None] * 3 + [*SENDERS])),
        draw(context) if draw(st.sampled_from([True] * 5 + [False])) else {},
        draw(st.sampled_from([None] * 12 + ["muted", "faked", "faked by pattern"])),
        *draw(st.tuples(*[st.booleans()] * 5)),
    )


class Owner:
    """Has a handler as a method, and may go away."""

    def __init__(self, handler: Callable[..., Any]) -> None:
        self.handler = handler

    def take_keywords(self, sender: Any, **context: Any) -> Any:
        return self.handler(sender, **context)

    async def take_keywords_async(self, sender: Any, **context: Any) -> Any:
        return await self.handler(sender, **context)

    def take_list(self, contexts: list[Any]) -> Any:
        return self.handler(contexts)


@dataclass
class World:
    """A registry with the drawn subscriptions, which note their calls."""

    drawn: list[Drawn]
    emitting: Emitting
    signals: SignalRegistry = field(default_factory=SignalRegistry)
    calls: list[str] = field(default_factory=list)
    owners: list[Owner] = field(default_factory=list)

    def __post_init__(self) -> None:
        model = Thing if self.emitting.has_model else None
        self.signal: Any = self.signals.signal(EVENT, context=model)  # type: ignore[arg-type]
        self.signals.signal(OTHER)
        self.dispatcher = EventDispatcher(self.signals, max_workers=1)
        things = [object(), object(), 0, False, "me", None, self.signal]
        self.senders = dict(zip(SENDERS, things, strict=True))
        for number, drawn in enumerate(self.drawn):
            self.subscribe(f"h{number}", drawn)

    def subscribe(self, name: str, drawn: Drawn) -> None:
        sender = ANY if drawn.sender is None else self.senders[drawn.sender]
        handler = self.handler(name, drawn)
        if drawn.by in ("connect", "twice"):
            self.signal.connect(handler, sender=sender, weak=False)
            if drawn.by == "twice":
                self.signal.connect(handler, weak=False)
            if drawn.end:
                self.signal.disconnect(handler)
            return
        if drawn.by == "method":
            handler = self.method(handler, drawn)
        options: dict[str, Any] = {
            "id": name,
            "sender": sender,
            "priority": drawn.priority,
            "once": drawn.once,
            "when": None if drawn.when is None else WHENS[drawn.when],
            "background": drawn.mode in ("background", "later"),
            "batch": Batch(max_wait=60) if drawn.mode == "batch" else None,
        }
        if drawn.by == "group":
            group = HandlerGroup(name)
            group.on(drawn.target, **options)(handler)
            group.register(self.signals)
            if drawn.end:
                group.unregister(self.signals)
            return
        subscription = self.signals.subscribe(drawn.target, handler, **options)
        if drawn.end == "cancelled":
            subscription.cancel()

    def method(self, handler: Callable[..., Any], drawn: Drawn) -> Any:
        """Return a method that calls a handler; its object is kept unless it is to go away."""
        owner = Owner(handler)
        if drawn.end != "collected":
            self.owners.append(owner)
        if drawn.mode == "batch":
            return owner.take_list
        is_async = drawn.mode in ("awaited", "later")
        return owner.take_keywords_async if is_async else owner.take_keywords

    def handler(self, name: str, drawn: Drawn) -> Any:
        def act() -> str:
            self.calls.append(name)
            return name

        def take_keywords(sender: Any, **context: Any) -> str:
            return act()

        def take_name(count: int) -> str:
            return act()

        def take_request_id(request_id: str) -> str:
            return act()

        def take_emission(emission: Emission[Any]) -> str:
            return act()

        def take_model(context: Thing) -> str:
            return act()

        def take_any_model(context: BaseEventContext) -> str:
            return act()

        def take_list(contexts: list[Any]) -> str:
            assert len(contexts) == 1
            return act()

        if drawn.mode == "batch":
            return take_list
        by_form: dict[str, Callable[..., str]] = {
            "keywords": take_keywords,
            "nothing": act,
            "emission": take_emission,
            "any model": take_any_model,
            "name": take_name,
            "model": take_model,
            "request_id": take_request_id,
        }
        handler = by_form["keywords" if drawn.by == "method" else drawn.takes]
        handler.__qualname__ = name
        return made_async(handler) if drawn.mode in ("awaited", "later") else handler

    @contextmanager
    def around(self) -> Iterator[None]:
        """Enter what is drawn to be around the emission."""
        with ExitStack() as stack:
            if self.emitting.has_scope:
                stack.enter_context(event_scope(request_id="r1"))
            match self.emitting.block:
                case "muted":
                    stack.enter_context(self.signal.muted())
                case "faked":
                    stack.enter_context(fake_events(EVENT, signals=self.signals))
                case "faked by pattern":
                    stack.enter_context(fake_events("thing_*", signals=self.signals))
            yield

    @property
    def sender(self) -> Any:
        name = self.emitting.sender
        return None if name is None else self.senders[name]

    def explain(self) -> Explanation:
        with self.around():
            return self.ask(sender=self.sender)

    def ask(self, **sender: Any) -> Explanation:
        if self.emitting.model is not None:
            return self.signals.explain(self.emitting.model, **sender)
        return self.signals.explain(EVENT, **sender, **self.emitting.context)

    def emit(self) -> list[str]:
        """Emit the event; return the handlers that were called, in that order."""
        self.calls.clear()
        model, context = self.emitting.model, self.emitting.context
        event, fields = (EVENT, context) if model is None else (model, {})

        async def emit_async() -> None:
            with self.around():
                await self.dispatcher.emit_async(event, self.sender, **fields)
            assert await self.dispatcher.drain_async(LIMIT)

        if self.emitting.is_async:
            asyncio.run(emit_async())
        else:
            with self.around():
                self.dispatcher.emit(event, self.sender, **fields)
            assert self.dispatcher.drain(LIMIT)
        return [*self.calls]

    def drawn_as(self, name: str) -> Drawn:
        return self.drawn[int(name[1:])]

    def runs_with(self, name: str) -> str:
        """Return what orders the calls of a handler: its mode, and for some where it runs."""
        mode = self.drawn_as(name).mode
        return name if mode == "batch" else mode  # nothing orders the batches of two handlers


def made_async(handler: Callable[..., str]) -> Any:
    """Return an async function of the same parameters."""

    async def handle(*positional: Any, **keywords: Any) -> str:
        return handler(*positional, **keywords)

    handle.__signature__ = inspect.signature(handler, eval_str=True)  # type: ignore[attr-defined]
    handle.__qualname__ = handler.__qualname__
    return handle


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Failures are part of the stories."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def name_of(entry: Any) -> str:
    name: str = entry.name
    return name.rpartition(".")[2]


@settings(max_examples=200)
@given(st.lists(subscriptions(), min_size=1, max_size=10), emissions())
def test_what_is_explained_is_what_happens(drawn: list[Drawn], emitting: Emitting) -> None:
    world = World(drawn, emitting)
    with world.dispatcher:
        if emitting.comes_again:
            world.emit()  # which uses up what is `once`
        world.calls.clear()

        explanation = world.explain()

        assert world.calls == []
        assert world.explain() == explanation
        said = [name_of(it) for it in explanation.called]
        left_out = [name_of(it) for it in explanation.left_out]
        # One that is connected twice may be called, and left out for the other connection.
        left_out = [it for it in left_out if world.drawn_as(it).by != "twice"]
        assert len({*said, *left_out}) == len([*said, *left_out])
        for entry in explanation.called:
            mode = world.drawn_as(name_of(entry)).mode
            assert entry.mode == MODES.get(mode, mode)
        with world.around():
            of_all_senders = world.ask()

        calls = world.emit()

    assert not {*calls} & {*left_out}
    if emitting.context:
        assert sorted(calls) == sorted(said)
        for place in {*map(world.runs_with, said)}:
            assert [it for it in calls if world.runs_with(it) == place] == [
                it for it in said if world.runs_with(it) == place
            ]
        note(f"called: {min(len(said), 3)}")
    else:
        assert {*calls} <= {*said}
        unconditional = [name_of(it) for it in explanation.called if not it.depends_on_when]
        assert {it for it in unconditional if world.drawn_as(it).needs_no_field} <= {*calls}
    for entry in explanation.left_out:
        note(entry.reason)
    of_all = [name_of(it) for it in of_all_senders.called]
    assert said == [it for it in of_all if it in said]
