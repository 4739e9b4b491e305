"""Libraries whose handlers are found by sender or by topic."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

from ..measuring import Act
from ..ours import CONTEXT, KEYWORDS, NAME
from .peer import Peer

_numbers = count()


class PyDispatcher(Peer):
    name = "PyDispatcher"
    distribution = "PyDispatcher"
    module = "pydispatch.dispatcher"
    leaves_out = "no isolation, no priorities, no types, nothing async, not safe with threads"

    def begin(self) -> None:
        self.sender = Peer  # any object; the event is of its own
        self.event = f"{NAME}_{next(_numbers)}"

    def connect(self, handler: Any) -> None:
        self.library.connect(handler, signal=self.event, sender=self.sender)

    def emit(self) -> Act:
        send, event, sender = self.library.send, self.event, self.sender
        return lambda: send(signal=event, sender=sender, **KEYWORDS)

    def emit_typed(self) -> Act:
        send, event, sender = self.library.send, self.event, self.sender
        return lambda: send(signal=event, sender=sender, context=CONTEXT)

    def chained(self, depth: int) -> Act:
        send, event = self.library.send, self.event

        def handler(sender: Any, left: int) -> None:
            if left:
                send(signal=event, sender=sender, left=left - 1)

        self.fill(lambda: handler, 1)
        return lambda: send(signal=event, sender=Peer, left=depth - 1)

    def turn(self) -> Callable[[Any], object]:
        library, event, sender = self.library, self.event, self.sender

        def connect_and_disconnect(handler: Any) -> None:
            library.connect(handler, signal=event, sender=sender)
            library.disconnect(handler, signal=event, sender=sender)

        return connect_and_disconnect


class Django(Peer):
    name = "Django send"
    distribution = "Django"
    module = "django.dispatch"
    leaves_out = "no isolation, no priorities, no types, nothing in the background"

    def begin(self) -> None:
        self.signal = self.library.Signal()

    def keyword_handler(self) -> Any:
        def handler(sender: Any, **kwargs: Any) -> None:
            pass

        return handler

    def context_handler(self) -> Any:
        def handler(sender: Any, context: Any, **kwargs: Any) -> None:
            pass

        return handler

    def connect(self, handler: Any) -> None:
        self.signal.connect(handler)

    def emit(self) -> Act:
        send = self.signal.send
        return lambda: send(sender=Peer, **KEYWORDS)

    def emit_typed(self) -> Act:
        send = self.signal.send
        return lambda: send(sender=Peer, context=CONTEXT)

    def emit_async(self) -> Callable[[], Awaitable[object]]:
        send = self.signal.asend
        return lambda: send(sender=Peer, **KEYWORDS)

    def chained(self, depth: int) -> Act:
        send = self.signal.send

        def handler(sender: Any, left: int, **kwargs: Any) -> None:
            if left:
                send(sender=sender, left=left - 1)

        self.fill(lambda: handler, 1)
        return lambda: send(sender=Peer, left=depth - 1)

    def turn(self) -> Callable[[Any], object]:
        signal = self.signal

        def connect_and_disconnect(handler: Any) -> None:
            signal.connect(handler)
            signal.disconnect(handler)

        return connect_and_disconnect


class DjangoRobust(Django):
    name = "Django send_robust"
    leaves_out = "no priorities, no types, nothing in the background"

    def emit(self) -> Act:
        send = self.signal.send_robust
        return lambda: send(sender=Peer, **KEYWORDS)

    def emit_typed(self) -> Act:
        send = self.signal.send_robust
        return lambda: send(sender=Peer, context=CONTEXT)

    def emit_async(self) -> Callable[[], Awaitable[object]]:
        send = self.signal.asend_robust
        return lambda: send(sender=Peer, **KEYWORDS)


class PyPubSub(Peer):
    name = "PyPubSub"
    takes_any_keywords = False
    distribution = "PyPubSub"
    module = "pubsub.pub"
    leaves_out = "no isolation, no results, no order, weak handlers only, nothing async"

    def begin(self) -> None:
        self.topic = f"{NAME}_{next(_numbers)}"

    def keyword_handler(self) -> Any:
        def handler(user_id: str, email: str, name: str, ip_address: str) -> None:
            pass

        return handler

    def context_handler(self) -> Any:
        def handler(context: Any) -> None:
            pass

        return handler

    def connect(self, handler: Any) -> None:
        self.library.subscribe(handler, self.topic)

    def emit(self) -> Act:
        send, topic = self.library.sendMessage, self.topic
        return lambda: send(topic, **KEYWORDS)

    def emit_typed(self) -> Act:
        send, topic = self.library.sendMessage, self.topic
        return lambda: send(topic, context=CONTEXT)

    def turn(self) -> Callable[[Any], object]:
        library, topic = self.library, self.topic

        def connect_and_disconnect(handler: Any) -> None:
            library.subscribe(handler, topic)
            library.unsubscribe(handler, topic)

        return connect_and_disconnect
