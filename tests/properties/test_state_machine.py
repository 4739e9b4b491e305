"""The registry against a plain model, over many random steps (section 6, Reliability).

The model is a list of subscriptions and a function of ten lines that says who
is called. Rules change both sides alike; every emission compares them.
"""

from __future__ import annotations

import contextlib
import gc
import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from madcrow_events import ANY, Emission, EventDispatcher, SignalRegistry
from support.inside import declared_in, senders_of

EVENTS = ["alpha", "alpha.one", "alpha.two", "beta", "beta_b"]
PATTERNS = ["*", "alpha*", "*a", "beta_*"]
PLAIN_SENDERS = [0, False, "", "me", None, 1.0, 1, True, ("me", 1), ("me", True)]
STEPS = 50


class Owner:
    """Has a handler as a method, and may go away."""

    def __init__(self, act: Any) -> None:
        self.act = act

    def handle(self, sender: Any, **context: Any) -> int:
        result: int = self.act()
        return result


class Sender:
    """May go away."""


@dataclass(eq=False)
class Expected:
    """What the model knows of one subscription."""

    number: int
    event: str
    priority: int
    once: bool
    when: bool
    sender: Any
    nested: str | None
    owner: int | None
    active: bool = True
    real: Any = None
    handler: Any = None

    def matches(self, event: str) -> bool:
        return re.fullmatch(re.escape(self.event).replace(r"\*", ".*"), event) is not None


@dataclass
class Isolation:
    """What the model puts back at the end of an isolated block."""

    context: Any
    events: list[str]
    active: dict[int, bool] = field(default_factory=dict)


def same(one: Any, other: Any) -> bool:
    """Whether two senders are the same, as guarantee L2 says."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Sender) or isinstance(other, Sender):
        return one is other
    return type(one) is type(other) and bool(one == other)


class RegistryMachine(RuleBasedStateMachine):
    steps = 0
    heard = 0

    def __init__(self) -> None:
        super().__init__()
        self.signals = SignalRegistry()
        self.dispatcher = EventDispatcher(self.signals)
        self.events: list[str] = []
        self.model: list[Expected] = []
        self.calls: list[int] = []
        self.owners: dict[int, Owner] = {}
        self.senders: dict[int, Sender] = {}
        self.mutes: list[tuple[str, Any]] = []
        self.isolations: list[Isolation] = []
        self.count = 0
        self.turn = 0
        for event in EVENTS[:3]:
            self.declare(event)

    # What is declared, subscribed and cancelled

    @rule(event=st.sampled_from(EVENTS))
    def declare(self, event: str) -> None:
        self.signals.signal(event.replace("_", "-"))
        if event not in self.events:
            self.events.append(event)

    def _sender(self, choice: int | None) -> Any:
        if choice is None:
            return ANY
        if choice < len(PLAIN_SENDERS):
            return PLAIN_SENDERS[choice]
        return self.senders.setdefault(choice, Sender())

    @rule(
        data=st.data(),
        priority=st.integers(-1, 1),
        once=st.booleans(),
        when=st.booleans(),
        sender=st.none() | st.none() | st.integers(0, len(PLAIN_SENDERS) + 2),
        nested=st.none() | st.none() | st.sampled_from(EVENTS),
        shape=st.sampled_from(["owner", "bare", "keywords", "emission"]),
    )
    def subscribe(
        self,
        data: st.DataObject,
        priority: int,
        once: bool,
        when: bool,
        sender: int | None,
        nested: str | None,
        shape: str,
    ) -> None:
        target_name = data.draw(st.sampled_from(self.events * 2 + PATTERNS))
        self.count += 1
        expected = Expected(
            self.count,
            target_name,
            priority,
            once,
            when,
            self._sender(sender),
            nested,
            self.count if shape == "owner" else None,
        )
        options: dict[str, Any] = {"priority": priority, "once": once, "sender": expected.sender}
        if when:
            options["when"] = lambda context: context["flag"]
        handler = self._handler(expected, shape)
        expected.real = self.signals.subscribe(target_name, handler, **options)
        assert self.signals.subscribe(target_name, handler, **options) is expected.real
        expected.handler = handler if shape != "owner" else None
        self.model.append(expected)

    def _handler(self, expected: Expected, shape: str) -> Any:
        number, nested = expected.number, expected.nested

        def act() -> int:
            self.calls.append(number)
            if nested is not None and nested in self.signals and not self.nesting:
                self.nesting = True
                try:
                    self.dispatcher.emit(nested, flag=True)
                finally:
                    self.nesting = False
            return number

        def keywords(sender: Any, **context: Any) -> int:
            return act()

        def emission(emission: Emission[Any]) -> int:
            return act()

        if shape == "owner":
            self.owners[number] = Owner(act)
            return self.owners[number].handle
        return {"bare": lambda: act(), "keywords": keywords, "emission": emission}[shape]

    nesting = False

    @precondition(lambda self: any(entry.active for entry in self.model))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from([entry for entry in self.model if entry.active]))
        entry.real.cancel()
        entry.active = False

    @precondition(lambda self: any(entry.active and entry.handler for entry in self.model))
    @rule(data=st.data())
    def unsubscribe(self, data: st.DataObject) -> None:
        entry = data.draw(
            st.sampled_from([entry for entry in self.model if entry.active and entry.handler])
        )
        assert self.signals.unsubscribe(entry.event, entry.handler) is True
        assert self.signals.unsubscribe(entry.event, entry.handler) is False
        entry.active = False

    @precondition(lambda self: sum(entry.active for entry in self.model) > 8)
    @rule()
    def clear(self) -> None:
        self.signals.clear_handlers()
        for entry in self.model:
            entry.active = False

    # What goes away by itself

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def collect_an_owner(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.owners)))
        del self.owners[number]
        gc.collect(0)
        self._die(lambda entry: entry.owner == number)

    @precondition(lambda self: self.senders)
    @rule(data=st.data())
    def collect_a_sender(self, data: st.DataObject) -> None:
        choice = data.draw(st.sampled_from(sorted(self.senders)))
        dying = [entry for entry in self.model if entry.sender is self.senders[choice]]
        for entry in dying:
            entry.sender = "gone"
        del self.senders[choice]
        gc.collect(0)
        self._die(lambda entry: entry in dying)

    def _die(self, which: Any) -> None:
        for entry in self.model:
            if which(entry):
                entry.active = False
                for isolation in self.isolations:
                    isolation.active[entry.number] = False

    # Muting and isolating

    @precondition(lambda self: self.events and len(self.mutes) < 2 and self.count % 4 == 0)
    @rule(data=st.data())
    def mute(self, data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(self.events))
        context = self.signals[event].muted()
        context.__enter__()
        self.mutes.append((event, context))

    @precondition(lambda self: self.mutes)
    @rule(data=st.data())
    def unmute(self, data: st.DataObject) -> None:
        _, context = self.mutes.pop(data.draw(st.integers(0, len(self.mutes) - 1)))
        context.__exit__(None, None, None)

    @precondition(lambda self: len(self.isolations) < 3 and self.count % 3 == 0 and not self.mutes)
    @rule(empty=st.booleans())
    def isolate(self, empty: bool) -> None:
        active = {entry.number: entry.active for entry in self.model}
        context = self.signals.isolated(empty=empty)
        context.__enter__()
        self.isolations.append(Isolation(context, list(self.events), active))
        if empty:
            self.events.clear()
            for entry in self.model:
                entry.active = False
            self.declare(EVENTS[0])

    @precondition(lambda self: self.isolations and not self.mutes)
    @rule()
    def end_isolation(self) -> None:
        isolation = self.isolations.pop()
        isolation.context.__exit__(None, None, None)
        self.events = isolation.events
        for entry in self.model:
            entry.active = isolation.active.get(entry.number, False)

    # Emitting

    @precondition(lambda self: self.events)
    @rule(
        data=st.data(),
        sender=st.none() | st.integers(0, len(PLAIN_SENDERS) + 2),
        flag=st.booleans(),
        way=st.sampled_from(["emit", "send", "signal"]),
    )
    def emit(self, data: st.DataObject, sender: int | None, flag: bool, way: str) -> None:
        event = data.draw(st.sampled_from(self.events))
        self._emit(event, None if sender is None else self._sender(sender), flag, way)

    @invariant()
    def every_event_reaches_whom_the_model_says(self) -> None:
        """After every other step, so that few changes go without an emission."""
        self.turn += 1
        for event in self.events if self.turn % 2 else ():
            self._emit(event, None, flag=True, way="emit")
            if any(entry.active and entry.sender is not ANY for entry in self.model):
                # All of them, for what must not be matched looks like what must.
                for sender in [*PLAIN_SENDERS, *self.senders.values()]:
                    self._emit(event, sender, flag=False, way="send")

    def _emit(self, event: str, who: Any, flag: bool, way: str) -> None:
        signal = self.signals[event]
        heard = signal if who is None and way != "send" else who
        direct: list[int] = []
        expected = self._expected_calls(event, heard, flag, direct)
        self.calls.clear()
        if way == "send":
            returned = [value for _, value in signal.send(who, flag=flag)]
        else:
            emission = self.dispatcher.emit(signal if way == "signal" else event, who, flag=flag)
            assert emission.ok, emission.failures
            returned = [result.value for result in emission.results]
        assert self.calls == expected
        RegistryMachine.heard += len(expected)
        assert returned == direct, "the results are those of this emission's own handlers"

    def _expected_calls(
        self, event: str, sender: Any, flag: bool, direct: list[int] | None
    ) -> list[int]:
        """Return all calls in order; put those of the event's own handlers into `direct`."""
        if any(event == muted for muted, _ in self.mutes):
            return []
        planned = [
            entry
            for entry in self.model
            if entry.active
            and entry.matches(event)
            and (entry.sender is ANY or same(entry.sender, sender))
        ]
        calls: list[int] = []
        for entry in sorted(planned, key=lambda entry: (-entry.priority, entry.number)):
            if (entry.when and not flag) or (entry.once and not entry.active):
                continue
            if entry.once:
                entry.active = False
            calls.append(entry.number)
            if direct is None:
                continue  # a handler emits only where it is not called by another's emission
            direct.append(entry.number)
            if entry.nested in self.events:
                calls += self._expected_calls(
                    entry.nested, self.signals[entry.nested], flag=True, direct=None
                )
        return calls

    @invariant()
    def what_is_active_is_what_the_model_says(self) -> None:
        RegistryMachine.steps += 1
        assert sorted(self.signals) == sorted(self.events)
        assert [entry.number for entry in self.model if entry.real.active] == [
            entry.number for entry in self.model if entry.active
        ]

    def teardown(self) -> None:
        for _, context in self.mutes:
            context.__exit__(None, None, None)
        with contextlib.suppress(RuntimeError):
            while self.isolations:
                self.isolations.pop().context.__exit__(None, None, None)
        self.signals.clear_handlers()
        for signal in declared_in(self.signals):
            assert not senders_of(signal)


@pytest.mark.soak
@pytest.mark.guarantee("N6")
def test_the_registry_agrees_with_a_plain_model(scale: float) -> None:
    """10,000 steps in full, a tenth of them in every run."""
    run_state_machine_as_test(
        RegistryMachine,
        settings=settings(
            max_examples=int(400 * scale),
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{RegistryMachine.steps} steps, {RegistryMachine.heard} calls")
    assert RegistryMachine.steps >= 10_000 * scale
