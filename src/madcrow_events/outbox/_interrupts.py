"""Letting through what the handler of a signal has raised while an author's code was called."""

from __future__ import annotations

from madcrow_events._interrupts import is_interrupt

__all__ = ["let_interrupts_through"]


def let_interrupts_through(error: Exception) -> None:
    """Raise an exception again if the handler of a signal has raised it, such as a time limit.

    What comes while a serialiser runs is lost: pydantic keeps no more than its text.

    Args:
        error: what was raised.
    """
    if is_interrupt(error):
        raise error
