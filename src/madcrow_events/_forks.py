"""Starting objects afresh in a forked child."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakValueDictionary

__all__ = ["PROCESS", "renew_after_fork"]

PROCESS: list[object] = [object()]
"""Its one thing stands for this process; a forked child gets another. Quicker than `os.getpid`."""


class _Renewed(Protocol):
    def _renew_after_fork(self) -> None: ...


_renewed: WeakValueDictionary[int, _Renewed] = WeakValueDictionary()


def renew_after_fork(owner: _Renewed) -> None:
    """Let `owner` start afresh in a forked child, where the other threads do not exist.

    A lock, for instance, would stay acquired there by a thread that is gone.
    """
    _renewed[id(owner)] = owner


def _renew_all() -> None:
    PROCESS[0] = object()
    for owner in list(_renewed.values()):
        owner._renew_after_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows has no fork
    os.register_at_fork(after_in_child=_renew_all)
