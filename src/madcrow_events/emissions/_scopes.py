"""What a scope fills in of the contexts that are emitted in it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TypedDict

from typing_extensions import Unpack

from madcrow_events._text import close_matches, printable, type_name
from madcrow_events.emissions._frames import (
    NO_FIELDS,
    AmbientFrame,
    current,
    enter,
    leave,
    new_ambient_frame,
)
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.models import SCOPE_FIELDS

__all__ = ["ScopeFields", "event_scope", "merge_scopes", "request_fields"]


class ScopeFields(TypedDict, total=False):
    """The fields that `event_scope` can fill in.

    Attributes:
        request_id: the id of the request that causes the events.
        user_agent: what the client says of itself.
        ip_address: the network address of the client.
    """

    request_id: str | None
    user_agent: str | None
    ip_address: str | None


LONGEST_USER_AGENT = 256
"""How many characters `request_fields` keeps of a user agent."""


_is_request_id = re.compile(r"[A-Za-z0-9._-]{1,128}").fullmatch


def request_fields(
    *, request_id: str | None = None, ip_address: str | None = None, user_agent: str | None = None
) -> ScopeFields:
    """Return fields for an `event_scope`, made from what a request says of itself.

    A client can write anything into its headers, so this function checks the values, and cuts them.
    Use it where you connect a web framework, as in `event_scope(**request_fields(...))` or
    `dispatcher.deferred(lambda: request_fields(...))`.

    Args:
        request_id: the id that the request claims to have. It is taken if it has 1 to 128 letters,
            digits, `.`, `_` and `-`, and nothing else. Otherwise, or if it is None, the request
            gets a new id.
        ip_address: the network address of the client, or None.
        user_agent: what the client says of itself, or None. The first 256 characters are kept.

    Returns:
        All three fields.

    Example:
        ```python
        from madcrow_events import request_fields

        print(request_fields(request_id="r-1", user_agent="curl/8.5"))
        made_up = request_fields(request_id="not an id")["request_id"]
        print(len(made_up))
        ```

        ```text
        {'request_id': 'r-1', 'ip_address': None, 'user_agent': 'curl/8.5'}
        32
        ```
    """
    if request_id is None or not _is_request_id(request_id):
        request_id = os.urandom(16).hex()
    return {
        "request_id": request_id,
        "ip_address": ip_address or None,
        "user_agent": user_agent[:LONGEST_USER_AGENT] if user_agent else None,
    }


class event_scope:  # noqa: N801  # used like a function, as contextlib's own are
    """A `with` block that fills in fields of the events in it, where their emitter leaves them out.

    The block applies to all dispatchers, and also to events that handlers emit, and to tasks and
    threads that begin with a copy of the context variables. An inner block adds to the fields of
    the outer one, or overrides them; None takes a field back. If an event's model declares one of
    the fields anew, as anything but plain text, that field is not filled in.

    Args:
        **fields: see `ScopeFields`.

    Raises:
        InvalidOptionError: there is no field of this name, or a value is neither text nor None.
        RuntimeError: the block is entered a second time.

    Example:
        ```python
        from madcrow_events import emit_event, event_scope, madcrow_signals, on_event

        madcrow_signals.signal("order_placed", "A customer placed an order.")


        @on_event("order_placed")
        def write_log(order_id: int, request_id: str | None = None) -> None:
            print(f"order {order_id}, request {request_id}")


        with event_scope(request_id="r-1"):
            emit_event("order_placed", order_id=7)
        ```

        ```text
        order 7, request r-1
        ```
    """

    # A class, not a generator function, for speed: a server enters one for each request.

    __slots__ = ("__weakref__", "_fields", "_frame", "_is_text")

    def __init__(self, **fields: Unpack[ScopeFields]) -> None:
        self._is_text = True
        for name, value in fields.items():
            if type(value) is not str or name not in SCOPE_FIELDS:
                merge_scopes(NO_FIELDS, fields)  # which refuses what does not fit
                self._is_text = False
        self._fields: Any = fields
        self._frame: AmbientFrame | None = None

    def __enter__(self) -> None:
        """Fill the fields in from now on.

        Raises:
            RuntimeError: it has been entered before.
        """
        if self._frame is not None:
            raise RuntimeError("an event_scope is good for one block: call event_scope() again")
        around = current()
        if around is None and self._is_text:  # nearly always
            frame = AmbientFrame()
            frame.fields = self._fields
        else:
            frame = new_ambient_frame(around)
            frame.fields = merge_scopes(frame.resolved_fields(), self._fields)
        self._frame = frame
        enter(frame, self)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Fill them in no longer."""
        assert self._frame is not None  # noqa: S101  # it has been entered
        leave(self._frame)


def merge_scopes(around: Mapping[str, str], fields: ScopeFields) -> Mapping[str, str]:
    """Return the fields of a scope together with those of the scope around it.

    Args:
        around: those of the scope around it.
        fields: those of the scope, checked here.

    Raises:
        InvalidOptionError: a name is none of `SCOPE_FIELDS`, or a value is neither text nor None.
    """
    merged: dict[str, Any] = dict(around)
    given: object = fields
    if not isinstance(given, dict):
        raise InvalidOptionError(
            f"scope must return a dictionary of fields, not {type_name(type(given))}",
            option="scope",
        )
    for name, value in fields.items():
        if name not in SCOPE_FIELDS:
            near = close_matches(name, SCOPE_FIELDS, 1)
            fix = f"did you mean '{near[0]}'?" if near else f"it takes {', '.join(SCOPE_FIELDS)}"
            raise InvalidOptionError(
                f"event_scope fills in no field called '{printable(name)}': {fix}", option=name
            )
        if isinstance(value, str):
            merged[name] = value
        elif value is None:
            merged.pop(name, None)
        else:
            raise InvalidOptionError(
                f"{name} must be text or None, not {type_name(type(value))}: write str(...)",
                option=name,
            )
    return merged
