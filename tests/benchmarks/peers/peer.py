"""What is asked of another library."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from ..measuring import Act
from ..ours import keyword_handler


class Peer:
    """One event of another library, and its handlers. A method returns None for what it lacks.

    Attributes:
        name: as it is called in the table.
        module: what is imported.
        distribution: what is installed.
        leaves_out: which promises of ours it does not make.
        takes_any_keywords: whether its handlers may be `h(sender, **context)`.
        handlers: the handlers that are connected; some libraries hold them weakly.
    """

    name: ClassVar[str]
    module: ClassVar[str]
    distribution: ClassVar[str]
    leaves_out: ClassVar[str]
    takes_any_keywords: ClassVar[bool] = True

    def __init__(self) -> None:
        self.library: Any = importlib.import_module(self.module)
        self.handlers: list[Any] = []
        self.begin()

    def begin(self) -> None:
        """Make the event."""
        raise NotImplementedError

    def connect(self, handler: Any) -> None:
        """Connect a handler."""
        raise NotImplementedError

    def keyword_handler(self) -> Any:
        """Make a handler that takes the context as keywords."""
        return keyword_handler()

    def context_handler(self) -> Any:
        """Make a handler that takes the context as one object."""

        def handler(sender: Any, context: Any) -> None:
            pass

        return handler

    def fill(self, make: Callable[[], Any], number: int) -> None:
        """Connect so many new handlers."""
        for _ in range(number):
            handler = make()
            self.handlers.append(handler)
            self.connect(handler)

    def emit(self) -> Act | None:
        """Return what emits with keywords."""
        return None

    def emit_typed(self) -> Act | None:
        """Return what emits with a context."""
        return None

    def emit_alone(self) -> Act | None:
        """Return what emits without a context."""
        return None

    def emit_async(self) -> Callable[[], Awaitable[object]] | None:
        """Return what emits with keywords, and waits for async handlers."""
        return None

    def chained(self, depth: int) -> Act | None:
        """Return what emits so many events, each but the first from the handler of the last."""
        return None

    def turn(self) -> Callable[[Any], object] | None:
        """Return what connects a handler, and disconnects it."""
        return None
