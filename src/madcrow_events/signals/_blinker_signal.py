"""A signal as code that was written for blinker uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import blinker
from typing_extensions import TypeVar

from madcrow_events._text import type_name
from madcrow_events.emissions._blinker_loop import send, send_async
from madcrow_events.emissions._styles import RECORDER
from madcrow_events.exceptions import HandlerSignatureError
from madcrow_events.subscriptions import ANY, Subscription
from madcrow_events.subscriptions._moving import move, own_subscriptions, share
from madcrow_events.subscriptions._signatures import call_spec_of_receiver
from madcrow_events.subscriptions._subscription import OptionsSubscription, order_of
from madcrow_events.subscriptions._table import Mute, SubscriptionTable

if TYPE_CHECKING:
    from madcrow_events.subscriptions import SubscriptionOptions

__all__ = ["BlinkerSignal", "translated", "translated_sender"]

ReceiverT = TypeVar("ReceiverT", bound="Callable[..., Any]")


class BlinkerSignal(blinker.NamedSignal):
    """The methods of a `blinker.NamedSignal`, on a table of subscriptions.

    `EventSignal` sets the attributes, without the `__init__` of blinker, for all of blinker's
    bookkeeping is replaced.
    """

    # Slots, because each emission reads the table: in a dictionary it would be one more place in
    # memory, which is slow to reach among many signals.
    __slots__ = ("_connected", "_disconnected", "_table")

    _table: SubscriptionTable
    _connected: blinker.Signal | None
    _disconnected: blinker.Signal | None

    @property
    def receiver_connected(self) -> blinker.Signal:  # pyright: ignore[reportIncompatibleVariableOverride]  # cached there
        """A blinker signal: sent after a handler is connected or subscribed to the event.

        It carries `receiver`, `sender` and `weak`.
        """
        if self._connected is None:
            self._connected = blinker.Signal(doc="Emitted after a receiver connects.")
        return self._connected

    @property
    def receiver_disconnected(self) -> blinker.Signal:  # pyright: ignore[reportIncompatibleVariableOverride]  # cached there
        """A blinker signal: sent after `disconnect`, with `receiver` and `sender`."""
        if self._disconnected is None:
            self._disconnected = blinker.Signal(doc="Emitted after a receiver disconnects.")
        return self._disconnected

    def connect(
        self,
        receiver: ReceiverT,
        sender: Any = blinker.ANY,
        weak: bool = True,  # blinker's signature
    ) -> ReceiverT:
        """Subscribe a receiver in blinker's way: it is called as `receiver(sender, **context)`.

        Its signature is not checked. For new code, use `on` or `subscribe`.

        Args:
            receiver: a function or another callable.
            sender: only emissions of this sender reach the receiver; `ANY`, the default, stands for
                every sender. Senders are compared by identity, plain values by type and value.
            weak: whether the connection ends when nothing else refers to the receiver.

        Returns:
            The receiver.

        Raises:
            HandlerSignatureError: the receiver cannot be called.
            InvalidOptionError: Python cannot hold the receiver weakly. Give `weak=False`.
            SubscriptionConflictError: the receiver was subscribed with `subscribe` before.
        """
        if not callable(receiver):
            raise HandlerSignatureError(
                f"{type_name(type(receiver))} cannot be called: connect a function",
                event=self.name,
                handler=receiver,
            )
        table = self._table
        spec = call_spec_of_receiver(receiver)
        options = translated({"sender": sender, "weak": weak})
        requested = OptionsSubscription(table, self.name, receiver, spec, options, connected=True)
        present = self._connection(receiver, sender)
        if present is not None and present.weak != weak:
            table.replace(requested)
        else:
            table.add(requested)
        self._bring_along(table)
        self._notify_connected(receiver, sender, weak)
        return receiver

    @contextmanager
    def connected_to(
        self, receiver: Callable[..., Any], sender: object = blinker.ANY
    ) -> Iterator[None]:
        """Connect a receiver until the `with` block ends.

        A receiver that is connected already stays connected after the block.

        Args:
            receiver: a function or another callable. The block keeps it alive.
            sender: as for `connect`.
        """
        if self._connection(receiver, sender) is not None:
            yield
            return
        self.connect(receiver, sender=sender, weak=False)
        connection = self._connection(receiver, sender)
        try:
            yield
        finally:
            if connection is not None:
                connection.cancel()
            self._notify_disconnected(receiver, sender)

    def muted(self) -> AbstractContextManager[None]:  # type: ignore[override]  # the same to a caller
        """Return a `with` block in which `send` and `emit` call no handler of the event.

        The block mutes the event for its own thread or task, and for those that begin in it. Other
        threads and tasks are not muted.

        Returns:
            The block.
        """
        return Mute(self._table)

    @property
    def is_muted(self) -> bool:  # type: ignore[override]  # a plain attribute in blinker
        """Whether the event is muted in this thread or task."""
        return self._table.is_muted

    def send(
        self,
        sender: Any | None = None,
        /,
        *,
        _async_wrapper: Callable[[Any], Callable[..., Any]] | None = None,
        **kwargs: object,
    ) -> list[tuple[Callable[..., Any], Any]]:
        """Call the handlers in blinker's way: in order, until one of them raises.

        No handler runs in the background. Scopes, deferred blocks and observers do not apply.

        Args:
            sender: the object that sends. Handlers get it as it is, also None.
            _async_wrapper: makes a plain function of an async handler; None, the default, if there
                are only plain ones.
            **kwargs: the keywords for the handlers.

        Returns:
            Pairs of a handler and the value that it returned.

        Raises:
            RuntimeError: a handler is async, and there is no `_async_wrapper`.
            EmissionDepthError: events cause each other without end, more than 64 levels deep.
            Exception: a handler raised it. The handlers after that one are not called.
        """
        signal: Any = self  # an `EventSignal`
        return send(signal, self._table.plan_for(sender), sender, _async_wrapper, kwargs)

    async def send_async(
        self,
        sender: Any | None = None,
        /,
        *,
        _sync_wrapper: Callable[[Any], Callable[..., Any]] | None = None,
        **kwargs: object,
    ) -> list[tuple[Callable[..., Any], Any]]:
        """Await the handlers in blinker's way: one after the other, until one of them raises.

        Args:
            sender: the object that sends. Handlers get it as it is, also None.
            _sync_wrapper: makes an async function of a plain handler; None, the default, if there
                are only async ones.
            **kwargs: the keywords for the handlers.

        Returns:
            Pairs of a handler and the value that it returned.

        Raises:
            RuntimeError: a handler is not async, and there is no `_sync_wrapper`.
            EventLoopError: a handler is async, and asyncio does not run here.
            EmissionDepthError: events cause each other without end, more than 64 levels deep.
            Exception: a handler raised it. The handlers after that one are not called.
        """
        signal: Any = self
        plan = self._table.plan_for(sender)
        return await send_async(signal, plan, sender, _sync_wrapper, kwargs)

    @property
    def receivers(self) -> Mapping[Any, Any]:  # type: ignore[override]  # a plain dict in blinker
        """The handlers, in a mapping whose keys have no meaning. It is empty without handlers."""
        return {order_of(entry): entry.handler for entry in self._table.live()}

    def has_receivers_for(self, sender: object) -> bool:
        """Whether an emission of a sender would reach a handler.

        Args:
            sender: any object. `ANY` asks whether there is a handler for every sender.
        """
        return self._table.has_any_for(translated_sender(sender))

    def receivers_for(self, sender: object) -> Iterator[Callable[..., Any]]:  # type: ignore[override]  # a Generator in blinker, but callers only iterate
        """Yield the handlers that an emission of a sender would reach, in the order of their calls.

        Args:
            sender: any object.
        """
        for subscription in self._table.unmuted_plan_for(sender).by_priority:
            handler = subscription.handler
            if handler is not None and subscription.origin is not RECORDER:
                yield handler

    def disconnect(self, receiver: Callable[..., Any], sender: object = blinker.ANY) -> None:
        """Stop calling a receiver, whether it was connected or subscribed.

        Args:
            receiver: the receiver. If it is not connected, nothing happens.
            sender: only emissions of this sender no longer reach the receiver; `ANY`, the default,
                stands for all senders.
        """
        for subscription in self._table.of_handler(receiver, translated_sender(sender)):
            subscription.cancel()
        self._notify_disconnected(receiver, sender)

    def _clear_state(self) -> None:
        """Cancel every subscription; tests written for blinker call it."""
        for subscription in self._table.live():
            subscription.cancel()

    def _bring_along(self, table: SubscriptionTable) -> None:
        """Move what was subscribed just as the event became a former name of another one."""
        if table is not self._table:
            moving = own_subscriptions(table)
            share(moving, self._table)
            move(moving, table, self._table, self.name)

    def _connection(self, receiver: object, sender: object) -> Subscription | None:
        present = self._table.find(receiver, translated_sender(sender))
        return present if present is not None and present._connected else None

    def _notify_connected(self, receiver: object, sender: object, weak: bool) -> None:
        if self._connected is not None:
            sender = blinker.ANY if sender is ANY else sender
            self._connected.send(self, receiver=receiver, sender=sender, weak=weak)

    def _notify_disconnected(self, receiver: object, sender: object) -> None:
        if self._disconnected is not None:
            self._disconnected.send(self, receiver=receiver, sender=sender)


def translated_sender(sender: object) -> Any:
    """Return our `ANY` for blinker's, and any other sender as it is."""
    return ANY if sender is blinker.ANY else sender


def translated(options: SubscriptionOptions) -> SubscriptionOptions:
    """Return options with our `ANY` instead of blinker's."""
    if options.get("sender", ANY) is not blinker.ANY:
        return options
    return {**options, "sender": ANY}
