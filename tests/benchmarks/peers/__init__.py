"""Other libraries for events, each used as its own documentation does.

Two do other work than any row: fastapi-events emits once a response has been sent, and in bubus an
event is recorded and passes through a queue.
"""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec

from .emitters import Blinker, Psygnal, Pyee, PyeeAsync
from .peer import Peer
from .senders import Django, DjangoRobust, PyDispatcher, PyPubSub

__all__ = [
    "PEERS",
    "Blinker",
    "DjangoRobust",
    "Peer",
    "installed",
    "leave_out_all",
    "missing",
    "versions",
]

PEERS: tuple[type[Peer], ...] = (
    Blinker,
    Pyee,
    PyeeAsync,
    Psygnal,
    PyDispatcher,
    Django,
    DjangoRobust,
    PyPubSub,
)


_installed = [peer for peer in PEERS if find_spec(peer.module.partition(".")[0])]


def installed() -> tuple[type[Peer], ...]:
    """Return the peers that can be imported here."""
    return tuple(_installed)


def leave_out_all() -> None:
    """Measure without peers, where only this package matters."""
    _installed.clear()


def missing() -> list[str]:
    """Return the names of the others."""
    return [peer.name for peer in PEERS if peer not in installed()]


def versions() -> dict[str, str]:
    """Return the versions of those that are installed, by the names of their distributions."""
    return {peer.distribution: version(peer.distribution) for peer in installed()}
