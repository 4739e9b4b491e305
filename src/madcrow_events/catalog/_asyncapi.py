"""The catalogue as an AsyncAPI document."""

from __future__ import annotations

from typing import Any

from madcrow_events.catalog._document import document_of, key_of, operation_on
from madcrow_events.catalog._selection import select
from madcrow_events.models import BaseEventContext
from madcrow_events.signals import EventSignal, SignalRegistry, madcrow_signals

__all__ = ["asyncapi"]


def asyncapi(
    pattern: str | EventSignal[Any] | type[BaseEventContext] = "*",
    *,
    title: str = "Events",
    version: str = "1.0.0",
    signals: SignalRegistry = madcrow_signals,
) -> dict[str, Any]:
    """Return the declared events as an AsyncAPI 3.0 document, ready for `json.dumps`.

    Each event has a channel, whose address is the name of the event, and a message, whose payload
    is the event's context as `json_schema` describes it. In the keys of the document, a hyphen
    stands for each dot of a name. Old names of an event are in `x-former-names` of its channel.

    The document has an operation `send` for each event: an application may emit what it declares,
    and a registry does not know the emitters. It has an operation `receive` for each event that has
    a handler now. So import the modules with your handlers first.

    Args:
        pattern: which events, as for `json_schema`.
        title: the name of the application, for people.
        version: the version of the application's events.
        signals: the registry that declares the events.

    Returns:
        The document, with the events in the order of their names.

    Raises:
        InvalidEventNameError: the name or pattern is malformed.
        UnknownEventError: no event has this name, or the signal belongs to another registry.
        ContextModelError: the class cannot be the model of an event.

    Example:
        ```python
        from madcrow_events import BaseEventContext, madcrow_signals
        from madcrow_events.catalog import asyncapi


        @madcrow_signals.event
        class OrderPlaced(BaseEventContext):
            \"\"\"A customer placed an order.\"\"\"

            order_id: int


        document = asyncapi("order_*", title="Shop")
        print(document["channels"]["order_placed"]["address"])
        print(document["components"]["messages"]["order_placed"]["payload"])
        print(list(document["operations"]))
        ```

        ```text
        order_placed
        {'$ref': '#/components/schemas/OrderPlaced'}
        ['send_order_placed']
        ```
    """
    events = select(signals, pattern)
    document = document_of(
        events,
        title=title,
        version=version,
        description="The events that the application sends, and those that it handles.",
    )
    for event in events:
        document["operations"][f"send_{key_of(event)}"] = operation_on(event, "send")
        if event.receivers:
            document["operations"][f"receive_{key_of(event)}"] = operation_on(event, "receive")
    return document
