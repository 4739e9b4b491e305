"""Raising what an older program has stored to the version of today's model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from madcrow_events._text import handler_name, type_name
from madcrow_events.exceptions import (
    ContextModelError,
    HandlerSignatureError,
    InvalidOptionError,
    SubscriptionConflictError,
)
from madcrow_events.models import BaseEventContext
from madcrow_events.outbox._errors import UnknownVersionError, UnreadablePayloadError
from madcrow_events.subscriptions._kinds import is_async

__all__ = ["Document", "Upcast", "Upcasts", "version_of"]

Document = dict[str, Any]
"""The payload of an event, as `json.loads` returns it."""

Upcast = Callable[[Document], Document]


def version_of(event: str, model: type[BaseEventContext] | None) -> int:
    """Return the version in which the contexts of an event are stored.

    Args:
        event: the name of the event.
        model: the event's model, whose `event_version` it is; None if it has none.

    Raises:
        ContextModelError: `event_version` is no int from 1 to 32,767, or a field.
    """
    if model is None:
        return 1
    if "event_version" in model.model_fields:
        problem = "is a field"
    else:
        version = getattr(model, "event_version", 1)
        if _is_version(version):
            return int(version)
        problem = f"is no int from 1 to {_LARGEST}"
    raise ContextModelError(
        f"event_version of {type_name(model)} {problem}: write event_version: ClassVar[int] = 2",
        event=event,
        model=model,
    )


class Upcasts:
    """The functions that raise documents by one version each."""

    def __init__(self) -> None:
        self._functions: dict[tuple[str, int], Upcast] = {}

    def add(self, event: str, from_version: int, function: Upcast) -> None:
        """Enter a function; after its module ran again, it takes the place of the earlier one.

        Args:
            event: the name of the event.
            from_version: which version the function takes. It returns the next one.
            function: takes a document, which it may change, and returns one.

        Raises:
            HandlerSignatureError: the function is async, or cannot be called.
            InvalidOptionError: `from_version` is no positive int.
            SubscriptionConflictError: another function takes this version.
        """
        if not _is_version(from_version):
            raise InvalidOptionError(
                f"from_version must be an int from 1 to {_LARGEST}", option="from_version"
            )
        given: object = function
        if not callable(given) or is_async(given):
            problem = "is async" if callable(given) else "cannot be called"
            raise HandlerSignatureError(
                f"the upcast {handler_name(given)} of {event} {problem}: write a function that "
                "takes a dict and returns one",
                event=event,
                handler=given,
            )
        known = self._functions.setdefault((event, from_version), function)
        if known is not function:
            if handler_name(known) != handler_name(function):
                raise SubscriptionConflictError(
                    f"{handler_name(known)} already raises {event} from version {from_version}: "
                    "leave one of them out",
                    event=event,
                    handler=known,
                )
            self._functions[event, from_version] = function

    def check(self, version_of_event: Callable[[str], int]) -> None:
        """Refuse functions that are never called, because the model has no newer version.

        Args:
            version_of_event: returns the version of the model of an event, by its name.

        Raises:
            UnknownVersionError: there is one.
        """
        for (event, version), function in self._functions.items():
            known = version_of_event(event)
            if version >= known:
                raise UnknownVersionError(
                    f"{handler_name(function)} raises {event} from version {version}, but its "
                    f"model has version {known}: write event_version: ClassVar[int] = "
                    f"{version + 1}",
                    event=event,
                    version=version,
                    known=known,
                )

    def raise_version(self, event: str, version: int, known: int, document: Document) -> Document:
        """Return a document in the version of today's model.

        Args:
            event: the name of the event.
            version: the version of the document.
            known: the version of today's model.
            document: what is stored; upcasts may change it.

        Raises:
            UnknownVersionError: the version is newer than the model, or an upcast is missing.
            UnreadablePayloadError: an upcast has returned no dictionary.
        """
        if not 1 <= version <= known:
            raise UnknownVersionError(
                f"{event} is stored in version {version}, and its model here has version {known}: "
                "deploy the newer code to this process, too",
                event=event,
                version=version,
                known=known,
            )
        functions: list[Upcast] = []
        for number in range(version, known):
            function = self._functions.get((event, number))
            if function is None:
                raise UnknownVersionError(
                    f"{event} is stored in version {version}, and nothing raises version {number}: "
                    f"declare a function with @outbox.upcast({event}, from_version={number})",
                    event=event,
                    version=version,
                    known=known,
                )
            functions.append(function)
        for number, function in enumerate(functions, version):
            document = _raised(event, number, function, document)
        return document


def _raised(event: str, version: int, function: Upcast, document: Document) -> Document:
    raised: Any = function(document)
    if isinstance(raised, dict):
        return raised
    if hasattr(raised, "close"):  # a coroutine, which would warn that nobody awaits it
        raised.close()
    returned = type_name(type(raised))
    raise UnreadablePayloadError(
        f"the upcast {handler_name(function)} of {event} from version {version} returned "
        f"{returned}: let it return the dict",
        event=event,
        problems=((f"version {version}", f"upcast returned {returned}"),),
    )


def _is_version(version: object) -> bool:
    if isinstance(version, bool) or not isinstance(version, int):
        return False
    return 1 <= version <= _LARGEST


_LARGEST: Final = 2**15 - 1
"""What fits into the column."""
