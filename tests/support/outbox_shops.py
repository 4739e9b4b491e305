"""A shop with durable handlers in two deployments, of which the newer has another model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from sqlalchemy import Column, Integer, MetaData, Table, insert
from sqlalchemy.orm import Session

from madcrow_events import BaseEventContext, EventDispatcher, SignalRegistry
from madcrow_events.outbox import GiveUp, Outbox, Retry, RetryLater
from support.outbox_model import Handler

HOUR = 3600.0

EFFECTS = Table("machine_effect", MetaData(), Column("number", Integer))
"""What the transactional handler writes."""


class Order(BaseEventContext):
    number: int
    customer: str | None = None


class Note(BaseEventContext):
    number: int


class NewerOrder(Order):
    event_version: ClassVar[int] = 2
    amount: int = 0


class Refund(BaseEventContext):
    number: int
    customer: str | None = None


def handlers() -> list[Handler]:
    """Return what both deployments are to do."""
    return [
        Handler("first", "order", attempts=3),
        Handler("second", "order", attempts=2, wait=False, goes_on=True),
        Handler("booked", "order", attempts=3, is_single=True),
        Handler("noted", "note", attempts=2, skips=3, concurrency=2),
        Handler("web", "note", attempts=3, sender="web"),
        *newer_handlers(),
    ]


def newer_handlers() -> list[Handler]:
    """Return the handlers that only the newer deployment has."""
    return [Handler("late", "order", attempts=3), Handler("refunded", "refund", attempts=3)]


class Clock:
    """The clock by which workers know how long they have had a lease."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Shop:
    """One deployment: what it emits, and how its handlers act."""

    def __init__(self, *, is_newer: bool, prefix: str, clock: Clock) -> None:
        self.is_newer = is_newer
        self.clock = clock
        self.calls: list[tuple[str, int]] = []
        self.acts: Mapping[int, str] = {}
        self.heard: list[int] = []
        """What the ordinary handlers were told."""
        self.order: Any = NewerOrder if is_newer else Order
        self.versions = {"order": 2 if is_newer else 1, "note": 1, "refund": 1}
        signals = SignalRegistry()
        signals.signal("order", context=self.order, key="customer")
        signals.signal("note", context=Note)
        signals.signal("refund", context=Refund, key="customer")
        for name in self.versions:
            signals.subscribe(name, self._hear)
        self.outbox = Outbox("/shop", signals=signals, table_prefix=prefix)
        gone = [] if is_newer else [it.name for it in newer_handlers()]
        self.handlers = [it for it in handlers() if it.name not in gone]
        for it in self.handlers:
            self._declare(it)
        if is_newer:
            self.outbox.upcast("order", from_version=1)(_with_amount)

    @property
    def dispatcher(self) -> EventDispatcher:
        return self.outbox.signals.dispatcher

    def context(self, name: str, number: int, key: str | None) -> BaseEventContext:
        if name == "note":
            return Note(number=number)
        model: Any = self.order if name == "order" else Refund
        context: BaseEventContext = model(number=number, customer=key)
        return context

    def _hear(self, number: int) -> None:
        self.heard.append(number)

    def _declare(self, it: Handler) -> None:
        self.outbox.on(
            it.event,
            id=it.name,
            retry=Retry(attempts=it.attempts, wait_initial=HOUR if it.wait else 0, wait_jitter=0),
            on_dead="continue" if it.goes_on else None,
            concurrency=None if it.concurrency > 9 else it.concurrency,
            when=None if it.skips is None else lambda context: context["number"] % it.skips != 0,
            **({} if it.sender is None else {"sender": it.sender}),
        )(self._handler(it.name, is_single=it.is_single))

    def _handler(self, name: str, *, is_single: bool) -> Callable[..., None]:
        def handle(number: int) -> None:
            self._act(name, number)

        def book(number: int, session: Session) -> None:
            session.execute(insert(EFFECTS), {"number": number})
            self._act(name, number)

        return book if is_single else handle

    def _act(self, name: str, number: int) -> None:
        self.calls.append((name, number))
        act = self.acts.get(number, "ok")
        self.clock.now += {"slow": 1.0, "too slow": 10 * HOUR}.get(act, 0.0)
        match act:
            case "fail":
                raise LookupError
            case "give up":
                raise GiveUp
            case "later":
                raise RetryLater(HOUR)
            case "now":
                raise RetryLater(1e-9)


def _with_amount(document: dict[str, Any]) -> dict[str, Any]:
    return {**document, "amount": 0}
