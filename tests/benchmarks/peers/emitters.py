"""Libraries whose events are objects, or names of an emitter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..measuring import Act
from ..ours import CONTEXT, KEYWORDS, NAME, SENDER
from .peer import Peer


class Blinker(Peer):
    name = "blinker"
    distribution = "blinker"
    module = "blinker"
    leaves_out = "no isolation, no order, no types, nothing in the background; async one by one"

    def begin(self) -> None:
        self.signal = self.library.NamedSignal(NAME)

    def connect(self, handler: Any) -> None:
        self.signal.connect(handler)

    def emit(self) -> Act:
        signal = self.signal
        return lambda: signal.send(SENDER, **KEYWORDS)

    def emit_typed(self) -> Act:
        signal = self.signal
        return lambda: signal.send(SENDER, context=CONTEXT)

    def emit_alone(self) -> Act:
        signal = self.signal
        return lambda: signal.send(SENDER)

    def emit_async(self) -> Callable[[], Awaitable[object]]:
        signal = self.signal
        return lambda: signal.send_async(SENDER, **KEYWORDS)

    def chained(self, depth: int) -> Act:
        signal = self.signal

        def handler(sender: Any, left: int) -> None:
            if left:
                signal.send(sender, left=left - 1)

        self.fill(lambda: handler, 1)
        return lambda: signal.send(SENDER, left=depth - 1)

    def turn(self) -> Callable[[Any], object]:
        signal = self.signal

        def connect_and_disconnect(handler: Any) -> None:
            signal.connect(handler)
            signal.disconnect(handler)

        return connect_and_disconnect


class Pyee(Peer):
    name = "pyee"
    distribution = "pyee"
    module = "pyee"
    leaves_out = "no isolation, no results, no senders, no priorities, no types, no weak handlers"

    def begin(self) -> None:
        self.emitter = self.library.EventEmitter()

    def connect(self, handler: Any) -> None:
        self.emitter.on(NAME, handler)

    def emit(self) -> Act:
        emitter = self.emitter
        return lambda: emitter.emit(NAME, SENDER, **KEYWORDS)

    def emit_typed(self) -> Act:
        emitter = self.emitter
        return lambda: emitter.emit(NAME, SENDER, CONTEXT)

    def emit_alone(self) -> Act:
        emitter = self.emitter
        return lambda: emitter.emit(NAME, SENDER)

    def chained(self, depth: int) -> Act:
        emitter = self.emitter

        def handler(sender: Any, left: int) -> None:
            if left:
                emitter.emit(NAME, sender, left=left - 1)

        self.fill(lambda: handler, 1)
        return lambda: emitter.emit(NAME, SENDER, left=depth - 1)

    def turn(self) -> Callable[[Any], object]:
        emitter = self.emitter

        def connect_and_disconnect(handler: Any) -> None:
            emitter.on(NAME, handler)
            emitter.remove_listener(NAME, handler)

        return connect_and_disconnect


class PyeeAsync(Pyee):
    name = "pyee.asyncio"
    distribution = "pyee"
    module = "pyee.asyncio"

    def begin(self) -> None:
        self.emitter = self.library.AsyncIOEventEmitter()

    def emit_async(self) -> Callable[[], Awaitable[object]]:
        emitter = self.emitter

        async def emit_and_wait() -> None:
            emitter.emit(NAME, SENDER, **KEYWORDS)
            await emitter.wait_for_complete()

        return emit_and_wait


class Psygnal(Peer):
    name = "psygnal"
    takes_any_keywords = False
    distribution = "psygnal"
    module = "psygnal"
    leaves_out = "no isolation, no results, no keywords, no senders, nothing awaited"

    def begin(self) -> None:
        self.declare(object)

    def declare(self, *types: type) -> None:
        """Make the event again, for other arguments."""
        declared = type("Login", (), {"logged_in": self.library.Signal(*types)})
        self.signal = declared().logged_in

    def connect(self, handler: Any) -> None:
        self.signal.connect(handler)

    def context_handler(self) -> Any:
        def handler(context: Any) -> None:
            pass

        return handler

    def keyword_handler(self) -> Any:
        return self.context_handler()

    def emit_typed(self) -> Act:
        signal = self.signal
        return lambda: signal.emit(CONTEXT)

    def chained(self, depth: int) -> Act:
        self.declare(int)
        signal = self.signal

        def handler(left: int) -> None:
            if left:
                signal.emit(left - 1)

        self.fill(lambda: handler, 1)
        return lambda: signal.emit(depth - 1)

    def turn(self) -> Callable[[Any], object]:
        signal = self.signal

        def connect_and_disconnect(handler: Any) -> None:
            signal.connect(handler)
            signal.disconnect(handler)

        return connect_and_disconnect
