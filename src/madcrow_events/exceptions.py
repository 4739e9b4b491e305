"""The errors of this package.

Each error is also the built-in one that fits it, so `except LookupError` and
`except MadcrowEventsError` both work::

    MadcrowEventsError (Exception)
    ├── InvalidEventNameError (ValueError)       a name that no event can have
    ├── UnknownEventError (LookupError)          a name that nobody declared
    ├── SignalConflictError (ValueError)         one name, two context models
    ├── ContextModelError (TypeError)            a model that no signal can carry
    ├── ContextTypeError (TypeError)             a context of the wrong class
    ├── ContextValidationError (ValueError)      keywords that do not fit the model
    ├── HandlerSignatureError (TypeError)        a handler that cannot be called
    ├── InvalidOptionError (ValueError)          an option with an impossible value
    ├── SubscriptionConflictError (ValueError)   one handler, two sets of options
    ├── EmissionDepthError (RecursionError)      events that cause each other for ever
    ├── HandlerCancelledError (RuntimeError)     a handler that was broken off
    ├── HandlerTimeoutError (TimeoutError)       an async handler that took too long
    ├── QueueFullError (RuntimeError)            no place for a handler that would run later
    ├── DispatcherClosedError (RuntimeError)     a dispatcher that runs nothing later
    ├── EventLoopError (RuntimeError)            async handlers where asyncio does not run
    ├── WouldDeadlockError (RuntimeError)        a wait that would never end
    ├── PluginError (ImportError)                a plugin that cannot be loaded
    └── HandlerErrors (ExceptionGroup)           several failures of one emission

No message holds a value from a context: names, types and fixes only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

__all__ = [
    "ContextModelError",
    "ContextTypeError",
    "ContextValidationError",
    "DispatcherClosedError",
    "EmissionDepthError",
    "EventLoopError",
    "HandlerCancelledError",
    "HandlerErrors",
    "HandlerSignatureError",
    "HandlerTimeoutError",
    "InvalidEventNameError",
    "InvalidOptionError",
    "MadcrowEventsError",
    "PluginError",
    "QueueFullError",
    "SignalConflictError",
    "SubscriptionConflictError",
    "UnknownEventError",
    "WouldDeadlockError",
]


class MadcrowEventsError(Exception):
    """The base class of all errors of this package."""


class InvalidEventNameError(MadcrowEventsError, ValueError):
    """A name or pattern is malformed.

    Attributes:
        name: the name or pattern that was given.
    """

    def __init__(self, message: str, *, name: object = None) -> None:
        super().__init__(message)
        self.name = name


class UnknownEventError(MadcrowEventsError, LookupError):
    """No event of this name is declared, or a signal belongs to another registry.

    The error looks for similar names only when you read its message or its `suggestions`. So it
    costs little where it is caught and not read.

    Args:
        message: the text. If `suggestions` is a function, the suggestions take the place of its
            advice when the text is read.
        event: the name that was looked up, with underscores for hyphens.
        suggestions: declared names that resemble the name, the nearest first; or a function that
            returns them.

    Attributes:
        event: the name that was looked up, with underscores for hyphens.
    """

    def __init__(
        self,
        message: str,
        *,
        event: str = "",
        suggestions: tuple[str, ...] | Callable[[], tuple[str, ...]] = (),
    ) -> None:
        super().__init__(message)
        self.event = event
        self._suggestions = suggestions

    @property
    def suggestions(self) -> tuple[str, ...]:
        """Declared names that resemble the name, the nearest first."""
        suggestions = self._suggestions
        if callable(suggestions):
            suggestions = suggestions()
            if suggestions:
                hint = f"did you mean {' or '.join(suggestions)}?"
                self.args: tuple[Any, ...] = (f"no event is called '{self.event}': {hint}",)
            self._suggestions = suggestions
        return suggestions

    def __str__(self) -> str:
        """Return the message, with the suggestions."""
        _ = self.suggestions
        return super().__str__()

    def __repr__(self) -> str:
        """Return the call that makes the error, with the suggestions in its message."""
        _ = self.suggestions
        return super().__repr__()

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle the error with its suggestions, which another process could not find."""
        _ = self.suggestions
        return super().__reduce__()


class SignalConflictError(MadcrowEventsError, ValueError):
    """An event is declared again, with another context model or ordering key.

    Attributes:
        event: the name of the event.
        declared: the model that the event has, or None.
        requested: the model of the new declaration.
    """

    def __init__(
        self,
        message: str,
        *,
        event: str = "",
        declared: type[Any] | None = None,
        requested: type[Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.event = event
        self.declared = declared
        self.requested = requested


class ContextModelError(MadcrowEventsError, TypeError):
    """A class cannot be the context model of an event, or a key does not fit the model.

    Attributes:
        event: the name of the event.
        model: the class.
    """

    def __init__(self, message: str, *, event: str = "", model: object = None) -> None:
        super().__init__(message)
        self.event = event
        self.model = model


class ContextTypeError(MadcrowEventsError, TypeError):
    """A context is of another model than the event's, or is given in the wrong place.

    Attributes:
        event: the name of the event.
        expected: the models that the event accepts.
        received: the class of the object that was given.
    """

    def __init__(
        self,
        message: str,
        *,
        event: str = "",
        expected: tuple[type[Any], ...] = (),
        received: type[Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.event = event
        self.expected = expected
        self.received = received


class ContextValidationError(MadcrowEventsError, ValueError):
    """Fields do not fit the event's model, or a handler that takes fields by name.

    Attributes:
        event: the name of the event.
        problems: pairs of the name of a field and what is wrong with it.
    """

    def __init__(
        self, message: str, *, event: str = "", problems: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(message)
        self.event = event
        self.problems = problems


class HandlerSignatureError(MadcrowEventsError, TypeError):
    """A handler cannot be called with what its event carries.

    Attributes:
        event: the event or pattern for which the handler is, or an empty string.
        handler: the handler.
    """

    def __init__(self, message: str, *, event: str = "", handler: object = None) -> None:
        super().__init__(message)
        self.event = event
        self.handler = handler


class InvalidOptionError(MadcrowEventsError, ValueError):
    """An option or argument has an impossible value, or there is no option of this name.

    Attributes:
        option: the name of the option.
    """

    def __init__(self, message: str, *, option: str = "") -> None:
        super().__init__(message)
        self.option = option


class SubscriptionConflictError(MadcrowEventsError, ValueError):
    """A handler is subscribed already, with other options; or another handler has its `id`.

    Attributes:
        event: the event or pattern.
        handler: the handler that is subscribed already.
    """

    def __init__(self, message: str, *, event: str = "", handler: object = None) -> None:
        super().__init__(message)
        self.event = event
        self.handler = handler


class EmissionDepthError(MadcrowEventsError, RecursionError):
    """Events cause each other without end: emissions are nested more than 64 levels deep.

    Attributes:
        events: the names of the last six events of the chain, the newest last.
    """

    def __init__(self, message: str, *, events: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.events = events


class HandlerCancelledError(MadcrowEventsError, RuntimeError):
    """A handler was cut short, although nobody cancelled the emitter.

    The emitter gets it, under `on_error="raise"`, if a handler raised a `CancelledError`, or
    another exception that is no `Exception`. A bare `CancelledError` would look as if the emitter's
    own task were cancelled. The original exception is the `__cause__`.

    It is also the failure of a handler that could not be started, or whose event loop was closed.
    """


class HandlerTimeoutError(MadcrowEventsError, TimeoutError):
    """An async handler was cancelled because it took longer than its `timeout`.

    Attributes:
        event: the name of the event.
        handler: the handler.
        timeout: how many seconds the handler had.
    """

    def __init__(
        self, message: str, *, event: str = "", handler: object = None, timeout: float = 0
    ) -> None:
        super().__init__(message)
        self.event = event
        self.handler = handler
        self.timeout = timeout


class QueueFullError(MadcrowEventsError, RuntimeError):
    """The queue has no place for a handler that would run later.

    No handler of the event has been called, so you can emit the event again.

    Attributes:
        event: the name of the event.
        queue_size: how many places the queue has.
    """

    def __init__(self, message: str, *, event: str = "", queue_size: int = 0) -> None:
        super().__init__(message)
        self.event = event
        self.queue_size = queue_size


class DispatcherClosedError(MadcrowEventsError, RuntimeError):
    """A handler would run later, and the dispatcher is closed.

    No handler of the event has been called.

    Attributes:
        event: the name of the event.
    """

    def __init__(self, message: str, *, event: str = "") -> None:
        super().__init__(message)
        self.event = event


class EventLoopError(MadcrowEventsError, RuntimeError):
    """An async handler, or a wait in a task, needs asyncio, which does not run here.

    If a dispatcher emitted an event, no handler of the event has been called.

    Attributes:
        event: the name of the event; empty for a wait.
        library: the library that runs instead, such as `"trio"`; empty if none does.
    """

    def __init__(self, message: str, *, event: str = "", library: str = "") -> None:
        super().__init__(message)
        self.event = event
        self.library = library


class WouldDeadlockError(MadcrowEventsError, RuntimeError):
    """A wait would never end, because the handlers need the caller to go on."""


class PluginError(MadcrowEventsError, ImportError):
    """A plugin cannot be loaded; for example, it is no handler group.

    Attributes:
        plugin: the name of the plugin, or of its group.
    """

    def __init__(self, message: str, *, plugin: str = "") -> None:
        super().__init__(message)
        self.plugin: str = plugin


class HandlerErrors(MadcrowEventsError, ExceptionGroup[Exception]):  # noqa: N818  # a group of errors, named as ExceptionGroup is
    """Several handlers or emissions raised exceptions, which the caller gets as one group.

    A dispatcher with `on_error="raise"` raises it if several handlers failed. It also holds a
    single `StopIteration`, because Python does not let that exception out of a coroutine.

    Attributes:
        event: the name of the event.
    """

    def __new__(cls, message: str, exceptions: Sequence[Exception], *, event: str = "") -> Self:
        """Make the group; `ExceptionGroup` takes its arguments here."""
        self = super().__new__(cls, message, exceptions)
        self.event = event
        return self

    def __init__(self, message: str, exceptions: Sequence[Exception], *, event: str = "") -> None:
        super().__init__(message, exceptions)
        self.event = event

    def derive(self, excs: Sequence[Exception], /) -> HandlerErrors:  # type: ignore[override]  # narrower on purpose: only Exceptions ever enter
        """Return a group of the same event with the given exceptions.

        Python calls this for `except*`, `split` and `subgroup`.

        Args:
            excs: the exceptions.

        Returns:
            The new group.
        """
        return HandlerErrors(self.message, excs, event=self.event)
