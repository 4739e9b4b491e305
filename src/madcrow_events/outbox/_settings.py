"""Checking what an outbox is made with."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.signals import SignalRegistry

if TYPE_CHECKING:
    from madcrow_events.outbox._tables import Tables

__all__ = ["channel_of", "check_settings"]

_LONGEST_CHANNEL = 63
"""In bytes, in PostgreSQL."""


def channel_of(tables: Tables) -> str:
    """Return the channel on which commits of events are told.

    Raises:
        InvalidOptionError: PostgreSQL would refuse it, at each commit.
    """
    channel = tables.event.fullname
    if len(channel.encode()) > _LONGEST_CHANNEL or '"' in channel:
        raise InvalidOptionError(
            f"notify=True needs names without quotes and of up to {_LONGEST_CHANNEL} bytes in all: "
            "give the schema or the tables shorter ones",
            option="notify",
        )
    return channel


_LONGEST_PREFIX = 40
"""In characters; names in PostgreSQL have 63, and the longest that follows has 15."""


def check_settings(
    source: object,
    signals: object,
    schema: object,
    table_prefix: object,
    encode: object,
    decode: object,
) -> None:
    """Refuse what an outbox cannot be made with.

    Raises:
        InvalidOptionError: a value is impossible.
    """
    if not isinstance(source, str) or not source or not source.isprintable():
        raise InvalidOptionError(
            "source must be a URI reference that tells whose events they are, such as '/shop'",
            option="source",
        )
    if not isinstance(signals, SignalRegistry):
        raise InvalidOptionError(
            "signals must be a SignalRegistry, such as madcrow_signals", option="signals"
        )
    if schema is not None and not (
        isinstance(schema, str) and schema.isprintable() and schema and not {*schema} & {*":%"}
    ):
        raise InvalidOptionError(
            "schema must be the name of a schema, without ':' and '%', or None", option="schema"
        )
    if not isinstance(table_prefix, str) or not re.fullmatch(
        f"[a-zA-Z0-9_]{{0,{_LONGEST_PREFIX}}}", table_prefix
    ):
        raise InvalidOptionError(
            f"table_prefix must be a text of up to {_LONGEST_PREFIX} letters, digits and '_', such "
            "as 'shop_'",
            option="table_prefix",
        )
    for option, function in (("encode", encode), ("decode", decode)):
        if function is not None and not callable(function):
            raise InvalidOptionError(
                f"{option} must be a function that takes a str and returns one", option=option
            )
    if (encode is None) is not (decode is None):
        raise InvalidOptionError(
            "encode and decode belong together: give both, or none", option="encode"
        )
