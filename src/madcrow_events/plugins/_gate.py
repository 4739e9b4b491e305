"""The gate through which the handlers of a plugin are called, until it is unloaded.

A call first enters, and then looks whether the gate is closed. So once the gate is
closed and all calls inside have left, no handler starts any more. The call of an
async handler leaves after its first step, since the handler has started then.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from madcrow_events._clock import monotonic
from madcrow_events._forks import renew_after_fork
from madcrow_events._logs import log
from madcrow_events._text import handler_name
from madcrow_events.emissions._frames import CURRENT, Branch
from madcrow_events.emissions._outcomes import NO_RESULT
from madcrow_events.emissions._plan import CallSpec, call_with
from madcrow_events.emissions._styles import BY_EMISSION

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["Gate"]

_LOOKS_EVERY = 0.001  # seconds


class Gate:
    """Lets calls through until it is closed."""

    __slots__ = ("__weakref__", "_has_told", "_inside", "_is_closed")

    def __init__(self) -> None:
        self._renew_after_fork()
        renew_after_fork(self)
        self._is_closed = False
        self._has_told = False

    def _renew_after_fork(self) -> None:
        """Forget calls in threads that a forked child does not have."""
        # A token of each call, and the thread in which it is made.
        self._inside: dict[object, int] = {}

    def close(self) -> None:
        """Let nothing through any more."""
        self._is_closed = True

    def open(self) -> None:
        """Let calls through again."""
        self._is_closed = self._has_told = False

    def around(self, spec: CallSpec) -> CallSpec:
        """Return a call spec whose calls pass through the gate."""
        call = self._call_async if spec.is_async else self._call
        return CallSpec(
            BY_EMISSION,
            partial(call, spec.invoke),
            is_async=spec.is_async,
            item=spec.item,
            item_is_context=spec.item_is_context,
            invoke_batch=partial(call, spec.invoke_batch),
            ask=self._ask,
            fit=spec.fit,
        )

    def _enters(self, handler: object) -> object:
        """Return a token for a call that is now inside, or None if the gate is closed."""
        token = object()
        self._inside[token] = threading.get_ident()
        if not self._is_closed:
            return token
        self._leave(token)
        if not self._has_told and isinstance(CURRENT.get(None), Branch):
            self._has_told = True
            log(
                logging.WARNING,
                "%s is not called any more, because its plugin is unloaded; its pending background "
                "calls are dropped: drain the dispatcher before unloading",
                handler_name(handler),
            )
        return None

    def _leave(self, token: object) -> None:
        self._inside.pop(token, None)  # in a child that was forked inside, it is forgotten already

    def _call(self, invoke: Callable[[Any, Any], Any], handler: object, argument: object) -> Any:
        token = self._enters(handler)
        if token is None:
            return NO_RESULT
        try:
            return invoke(handler, argument)
        finally:
            self._leave(token)

    def _ask(self, when: Callable[[Any], object], context: object) -> bool:
        answer = self._call(call_with, when, context)
        return answer is not NO_RESULT and bool(answer)

    async def _call_async(
        self, invoke: Callable[[Any, Any], Any], handler: object, argument: object
    ) -> Any:
        return await _Steps(self, invoke, handler, argument)

    def wait(self, timeout: float | None) -> int:
        """Wait until the calls in other threads have left the gate.

        Args:
            timeout: how long to wait, in seconds; None for as long as it takes.

        Returns:
            How many of these calls did not end in time.
        """
        own = threading.get_ident()
        deadline = math.inf if timeout is None else monotonic() + timeout
        while True:
            inside = sum(thread != own for thread in list(self._inside.values()))
            if not inside or monotonic() >= deadline:
                return inside
            time.sleep(_LOOKS_EVERY)


class _Steps:
    """Awaits an async handler, which stays inside a gate until its first step is done."""

    __slots__ = ("_argument", "_gate", "_handler", "_invoke")

    def __init__(
        self, gate: Gate, invoke: Callable[[Any, Any], Any], handler: object, argument: object
    ) -> None:
        self._gate = gate
        self._invoke = invoke
        self._handler = handler
        self._argument = argument

    def __await__(self) -> Generator[Any, Any, Any]:
        token = self._gate._enters(self._handler)
        if token is None:
            return NO_RESULT
        try:
            # Outside of the inner `try`: a StopIteration that this raises is no returned value.
            steps = self._invoke(self._handler, self._argument).__await__()
            try:
                waits_for = next(steps)
            except StopIteration as end:
                return end.value
        finally:
            self._gate._leave(token)
        while True:
            try:
                yield waits_for
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as error:  # a cancellation, which the handler may answer
                try:
                    waits_for = steps.throw(error)
                except StopIteration as end:
                    return end.value
            else:
                return (yield from steps)
