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
    """Root of all errors of this package."""


class InvalidEventNameError(MadcrowEventsError, ValueError):
    """A name or pattern is not a valid one.

    Attributes:
        name: the name or pattern, as it was given.
    """

    def __init__(self, message: str, *, name: object = None) -> None:
        super().__init__(message)
        self.name = name


class UnknownEventError(MadcrowEventsError, LookupError):
    """No event of this name is declared.

    The error looks for similar names only when its message or `suggestions` is read: most such
    errors are caught unread, and users of the application may choose the name.

    Args:
        message: the text; if `suggestions` is a function, reading it adds them.
        event: the canonical name that was looked up.
        suggestions: declared names that resemble it, the nearest first, or a
            function that returns them.

    Attributes:
        event: the canonical name that was looked up.
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
        """Declared names that resemble it, the nearest first."""
        suggestions = self._suggestions
        if callable(suggestions):
            suggestions = suggestions()
            hint = (
                f"did you mean {' or '.join(suggestions)}?"
                if suggestions
                else f"declare it first, with signals.signal('{self.event}')"
            )
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
    """A signal is declared again with another context model.

    Attributes:
        event: the name of the signal.
        declared: the model that it has, or None.
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
    """A class cannot be a signal's context model.

    Attributes:
        event: the name of the signal.
        model: the class.
    """

    def __init__(self, message: str, *, event: str = "", model: object = None) -> None:
        super().__init__(message)
        self.event = event
        self.model = model


class ContextTypeError(MadcrowEventsError, TypeError):
    """A context is not an instance of the expected model.

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
    """The keywords of a loose emission do not fit a model or a handler.

    Attributes:
        event: the name of the event.
        problems: pairs of a field's name and what is wrong with it.
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
        event: the event or pattern that the handler is for, or an empty string.
        handler: the handler.
    """

    def __init__(self, message: str, *, event: str = "", handler: object = None) -> None:
        super().__init__(message)
        self.event = event
        self.handler = handler


class InvalidOptionError(MadcrowEventsError, ValueError):
    """An option has an impossible value.

    Attributes:
        option: the name of the option.
    """

    def __init__(self, message: str, *, option: str = "") -> None:
        super().__init__(message)
        self.option = option


class SubscriptionConflictError(MadcrowEventsError, ValueError):
    """A handler is subscribed already, with other options.

    Attributes:
        event: the event or pattern.
        handler: the handler.
    """

    def __init__(self, message: str, *, event: str = "", handler: object = None) -> None:
        super().__init__(message)
        self.event = event
        self.handler = handler


class EmissionDepthError(MadcrowEventsError, RecursionError):
    """Handlers emit events whose handlers emit events, and so on, too deep.

    Attributes:
        events: the names of the last six events of the chain, the newest last.
    """

    def __init__(self, message: str, *, events: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.events = events


class HandlerCancelledError(MadcrowEventsError, RuntimeError):
    """A handler was broken off, although nobody cancelled its caller.

    A dispatcher with `on_error="raise"` raises it instead of a `CancelledError`,
    which would make the emitter look like a cancelled task, and instead of any
    other exception that is not an `Exception`. The original is the `__cause__`.
    It is also the failure of a handler whose event loop was closed, or that
    could not be started.
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

    Attributes:
        event: the name of the event; none of its handlers has been called.
        queue_size: how many places the queue has.
    """

    def __init__(self, message: str, *, event: str = "", queue_size: int = 0) -> None:
        super().__init__(message)
        self.event = event
        self.queue_size = queue_size


class DispatcherClosedError(MadcrowEventsError, RuntimeError):
    """A handler would run later, but the dispatcher is closed.

    Attributes:
        event: the name of the event; none of its handlers has been called.
    """

    def __init__(self, message: str, *, event: str = "") -> None:
        super().__init__(message)
        self.event = event


class EventLoopError(MadcrowEventsError, RuntimeError):
    """Async handlers, or waiting in a task, need asyncio, which does not run here.

    Attributes:
        event: the name of the event; none of its handlers has been called.
        library: the library that runs instead, such as `"trio"`; empty if none does.
    """

    def __init__(self, message: str, *, event: str = "", library: str = "") -> None:
        super().__init__(message)
        self.event = event
        self.library = library


class WouldDeadlockError(MadcrowEventsError, RuntimeError):
    """A caller would wait for handlers that cannot end before the caller goes on."""


class PluginError(MadcrowEventsError, ImportError):
    """A plugin cannot be loaded: it is not a handler group, or one for a newer version.

    Attributes:
        plugin: the name of the plugin, or of the group.
    """

    def __init__(self, message: str, *, plugin: str = "") -> None:
        super().__init__(message)
        self.plugin: str = plugin


class HandlerErrors(MadcrowEventsError, ExceptionGroup[Exception]):  # noqa: N818  # a group of errors, named as ExceptionGroup is
    """Several handlers of one emission failed, under `on_error="raise"`.

    It also holds a single `StopIteration`, which cannot leave a coroutine by itself.

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
        """Return a group of the same event with some of the exceptions.

        `except*`, `split` and `subgroup` call it.
        """
        return HandlerErrors(self.message, excs, event=self.event)
