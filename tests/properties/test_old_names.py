"""Events that get other names, against a plain model, over many random steps (N8).

The model has an object for each signal, which knows the one that it acts as. A subscription stays
with the signal that it was made on, and whoever acts as another brings it along.
"""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
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

from madcrow_events import (
    BaseEventContext,
    EventDispatcher,
    SignalConflictError,
    SignalRegistry,
)
from support.inside import senders_of, take_back

NAMES = ["aa", "ab", "b.a", "b.b", "cc"]
PATTERNS = ["*", "a*", "*a", "b.*"]
STEPS = 30


@dataclass(eq=False)
class Event:
    """What the model knows of one signal."""

    name: str
    has_model: bool
    real: Any = None
    acts_as: Event | None = None

    def now(self) -> Event:
        return self if self.acts_as is None else self.acts_as.now()


@dataclass(eq=False)
class Handler:
    """What the model knows of one subscription: to an event, or to a pattern."""

    number: int
    target: Event | str
    priority: int
    once: bool
    real: Any = None
    active: bool = True


@dataclass
class Names:
    """What names mean: declared ones, and old ones, each with the event of its own it was."""

    declared: dict[str, Event] = field(default_factory=dict)
    old: dict[str, tuple[Event, Event | None]] = field(default_factory=dict)
    set_aside: dict[str, Event] = field(default_factory=dict)

    def copy(self) -> Names:
        return Names({**self.declared}, {**self.old}, {**self.set_aside})

    def find(self, name: str) -> Event | None:
        if name in self.declared:
            return self.declared[name]
        return self.old[name][0].now() if name in self.old else None

    def of(self, event: Event) -> list[str]:
        return [old for old, (it, _) in self.old.items() if it.now() is event]


@dataclass
class Isolation:
    """What the model puts back at the end of an isolated block."""

    context: Any
    names: Names
    acts_as: dict[Event, Event | None]
    active: list[Handler]
    targets: dict[Handler, Event | str]


class RenamingMachine(RuleBasedStateMachine):
    steps = 0
    heard = 0
    renamed = 0

    def __init__(self) -> None:
        super().__init__()
        self.signals = SignalRegistry()
        self.dispatcher = EventDispatcher(self.signals)
        self.names = Names()
        self.events: list[Event] = []
        self.handlers: list[Handler] = []
        self.isolations: list[Isolation] = []
        self.calls: list[int] = []

    # What names mean

    @rule(
        name=st.sampled_from(NAMES),
        formerly=st.lists(st.sampled_from(NAMES), max_size=2),
        has_model=st.sampled_from([False, False, True]),
        apart=st.booleans(),
    )
    def declare(self, name: str, formerly: list[str], has_model: bool, apart: bool) -> None:
        """Declare an event with old names, in one declaration or in two."""
        if apart:
            self._declare(name, [], has_model)
        self._declare(name, formerly, has_model)

    @precondition(lambda self: self.names.declared)
    @rule(data=st.data())
    def rename(self, data: st.DataObject) -> None:
        """Give an event a name that is free, so that some change theirs several times."""
        known = {*self.names.declared, *self.names.old}
        free = [name for name in NAMES if name not in known]
        old = data.draw(st.sampled_from(sorted(self.names.declared)))
        if free and not self.names.declared[old].has_model:
            self._declare(data.draw(st.sampled_from(free)), [old], has_model=False)

    def _declare(self, name: str, formerly: list[str], has_model: bool) -> None:
        options: dict[str, Any] = {"context": BaseEventContext} if has_model else {}
        found = self.names.find(name)
        now = name if found is None else found.name
        if self._is_conflict(name, now, formerly) or (has_model and found and not found.has_model):
            with pytest.raises(SignalConflictError):
                self.signals.signal(name, formerly=formerly, **options)
            return
        real = self.signals.signal(
            name, formerly=[it.replace("_", "-") for it in formerly], **options
        )
        event = found or self._made(now, has_model, real)
        assert event.real is real
        for old in dict.fromkeys(formerly):
            if old == now or (old in self.names.old and old not in self.names.declared):
                continue
            own = self.names.declared.pop(old, None)
            self.names.old[old] = event, own
            if own is not None:
                own.acts_as = event
                RenamingMachine.renamed += 1

    def _is_conflict(self, given: str, now: str, formerly: list[str]) -> bool:
        for old in formerly:
            found = self.names.find(old)
            if old == now:
                if given != now:
                    return True
            elif found is not None and (
                found.has_model if old == found.name else found.name != now
            ):
                return True
        return False

    def _made(self, name: str, has_model: bool, real: Any) -> Event:
        event = self.names.set_aside.get(name)
        if event is None or (has_model and not event.has_model):
            event = Event(name, has_model, real)
            self.events.append(event)
        event.acts_as = None
        self.names.declared[name] = event
        return event

    @precondition(lambda self: self.names.old)
    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        """As for plugins that are unloaded."""
        name = data.draw(st.sampled_from(sorted(self.names.old)))
        take_back(self.signals, [name])
        _, own = self.names.old.pop(name)
        if own is not None:
            own.acts_as = None
            self.names.declared[name] = own

    @precondition(lambda self: self.names.declared)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([*self.names.declared, *self.names.old]))
        event = self.names.find(name)
        assert event is not None
        assert self.signals.pop(name) is event.real
        for handler in self.handlers:
            if isinstance(handler.target, Event) and handler.target.now() is event:
                handler.target = event  # for good: the old names that brought it are gone
        for old in self.names.of(event):
            del self.names.old[old]
        del self.names.declared[event.name]

    # Handlers

    @rule(
        data=st.data(),
        priority=st.integers(0, 1),
        once=st.sampled_from([False, False, True]),
        by_signal=st.booleans(),
    )
    def subscribe(self, data: st.DataObject, priority: int, once: bool, by_signal: bool) -> None:
        known = [*self.names.declared, *self.names.old]
        name = data.draw(st.sampled_from(known * 3 + PATTERNS))
        number = len(self.handlers)
        found = self.names.find(name)
        handler = Handler(number, name if found is None else found, priority, once)

        def call() -> int:
            self.calls.append(number)
            return number

        options: Any = {"priority": priority, "once": once}
        if found is not None and by_signal:
            held = [it for it in self.events if it.now() is found]
            handler.real = data.draw(st.sampled_from(held)).real.subscribe(call, **options)
        else:
            handler.real = self.signals.subscribe(name, call, **options)
        self.handlers.append(handler)

    @precondition(lambda self: any(it.active for it in self.handlers))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        handler = data.draw(st.sampled_from([it for it in self.handlers if it.active]))
        handler.real.cancel()
        handler.active = False

    # Isolating

    @precondition(lambda self: len(self.isolations) < 2)
    @rule(empty=st.booleans())
    def isolate(self, empty: bool) -> None:
        context = self.signals.isolated(empty=empty)
        context.__enter__()
        acts_as = {it: it.acts_as for it in self.events}
        active = [it for it in self.handlers if it.active]
        targets = {it: it.target for it in active}
        self.isolations.append(Isolation(context, self.names.copy(), acts_as, active, targets))
        if empty:
            set_aside = {**self.names.set_aside, **self.names.declared}
            reached = self._reached()
            self.names = Names(set_aside=set_aside)
            for handler in active:
                handler.active = handler not in reached

    @precondition(lambda self: self.isolations)
    @rule()
    def end_isolation(self) -> None:
        isolation = self.isolations.pop()
        reached = self._reached()
        isolation.context.__exit__(None, None, None)
        self.names = isolation.names
        for event in self.events:
            event.acts_as = isolation.acts_as.get(event, event.acts_as)
        for handler, target in isolation.targets.items():
            handler.target = target
        for handler in {*reached, *self._reached()}:
            handler.active = handler in isolation.active and handler in self._reached()

    def _reached(self) -> list[Handler]:
        """Return the handlers of declared events and of patterns; no name finds the others."""
        declared = self.names.declared.values()
        return [
            it for it in self.handlers if isinstance(it.target, str) or it.target.now() in declared
        ]

    # What must be so

    @invariant()
    def names_mean_what_the_model_says(self) -> None:
        RenamingMachine.steps += 1
        assert sorted(self.signals) == sorted(self.names.declared)
        for name in NAMES:
            event = self.names.find(name)
            assert self.signals.get(name.replace("_", "-")) is (event and event.real)
        for event in self.names.declared.values():
            assert event.real.name == event.name
            assert sorted(event.real.formerly) == sorted(self.names.of(event))

    @invariant()
    def each_emission_reaches_whom_the_model_says(self) -> None:
        for event in list(self.names.declared.values()):
            held = [it.real for it in self.events if it.now() is event]
            for name in (event.name, *self.names.of(event), *held):
                expected = self._expected(event)
                self.calls.clear()
                emission = self.dispatcher.emit(name)
                assert emission.signal is event.real
                assert self.calls == expected == [it.value for it in emission.results]
                RenamingMachine.heard += len(expected)

    def _expected(self, event: Event) -> list[int]:
        names = [event.name, *self.names.of(event)]
        called = [
            it
            for it in self.handlers
            if it.active
            and (
                any(fnmatchcase(name, it.target) for name in names)
                if isinstance(it.target, str)
                else it.target.now() is event
            )
        ]
        called.sort(key=lambda it: (-it.priority, it.number))
        for it in called:
            it.active = not it.once
        return [it.number for it in called]

    @invariant()
    def what_is_active_is_what_the_model_says(self) -> None:
        reached = self._reached()
        assert [it.number for it in reached if it.real.active] == [
            it.number for it in reached if it.active
        ]
        for it in reached:
            if isinstance(it.target, Event) and it.active:
                assert it.real.event == it.target.now().name

    def teardown(self) -> None:
        with contextlib.suppress(RuntimeError):
            while self.isolations:
                self.isolations.pop().context.__exit__(None, None, None)
        for handler in self.handlers:
            handler.real.cancel()
        for event in self.events:
            assert not senders_of(event.real)


@pytest.mark.guarantee("N8")
@pytest.mark.parametrize("part", [pytest.param(1.0, marks=pytest.mark.soak), 0.05])
def test_old_names_agree_with_a_plain_model(part: float, scale: float) -> None:
    """30,000 steps in full, fewer in every run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        run_state_machine_as_test(
            RenamingMachine,
            settings=settings(
                max_examples=int(1000 * part * (scale if part == 1 else 1)),
                stateful_step_count=STEPS,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    print(f"{RenamingMachine.steps} steps, {RenamingMachine.heard} calls")
    assert RenamingMachine.steps
    assert RenamingMachine.renamed
