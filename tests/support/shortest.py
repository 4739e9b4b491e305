"""The shortest ways to emit a context, for tests that are told in each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from madcrow_events import (
    BaseEventContext,
    Emission,
    emit_event,
    emit_event_async,
    get_event_dispatcher,
    madcrow_signals,
)

Emit: TypeAlias = "Callable[..., Emission[Any]]"


def _by_dispatcher(*arguments: Any, **keywords: Any) -> Emission[Any]:
    return get_event_dispatcher().emit(*arguments, **keywords)


def _by_dispatcher_async(*arguments: Any, **keywords: Any) -> Emission[Any]:
    return asyncio.run(get_event_dispatcher().emit_async(*arguments, **keywords))


def _by_emit_event_async(*arguments: Any, **keywords: Any) -> Emission[Any]:
    return asyncio.run(emit_event_async(*arguments, **keywords))


def _by_signal(context: BaseEventContext, *arguments: Any, **keywords: Any) -> Emission[Any]:
    return madcrow_signals[type(context)].emit(context, *arguments, **keywords)


def _by_signal_async(context: BaseEventContext, *arguments: Any, **keywords: Any) -> Emission[Any]:
    return asyncio.run(madcrow_signals[type(context)].emit_async(context, *arguments, **keywords))


by_class = pytest.mark.parametrize(
    "emit",
    [
        pytest.param(emit_event, id="emit_event"),
        pytest.param(_by_emit_event_async, id="emit_event_async"),
        pytest.param(_by_dispatcher, id="dispatcher.emit"),
        pytest.param(_by_dispatcher_async, id="dispatcher.emit_async"),
    ],
)
"""Emit a context of a class that belongs to one event."""

in_short = pytest.mark.parametrize(
    "emit",
    [
        *by_class.args[1],
        pytest.param(_by_signal, id="signal.emit"),
        pytest.param(_by_signal_async, id="signal.emit_async"),
    ],
)
"""Emit a context of exactly the class of one event."""
