"""Subscriptions that no emission reaches, and the plan of a delivery, which calls one handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from madcrow_events.emissions._plan import Plan
from madcrow_events.emissions._styles import BY_OPTIONS
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.subscriptions._identity import sender_key
from madcrow_events.subscriptions._options import ANY, check_options
from madcrow_events.subscriptions._subscription import OptionsSubscription, entry_of

if TYPE_CHECKING:
    from madcrow_events.emissions import Emission
    from madcrow_events.emissions._plan import CallSpec, Entry, Segments
    from madcrow_events.subscriptions._endings import EndReason
    from madcrow_events.subscriptions._options import BoundOptions, SubscriptionOptions
    from madcrow_events.subscriptions._subscription import AnyTable, Subscription

__all__ = ["BoundSubscription", "checked_options", "plan_delivery"]


def checked_options(options: BoundOptions) -> SubscriptionOptions:
    """Return the options of a bound handler, unless one is unknown or impossible.

    Raises:
        InvalidOptionError: an option is unknown or has an impossible value, or says that the
            handler runs later.
    """
    given: Any = options  # which may have others all the same
    check_options(given)
    for later in ("background", "batch"):
        if given.get(later):
            raise InvalidOptionError(
                f"a bound handler runs when it is delivered to, one event at a time: leave out "
                f"{later}",
                option=later,
            )
    checked: SubscriptionOptions = given
    return checked


class BoundSubscription(OptionsSubscription):
    """A subscription that is in no table, so that no emission reaches its handler.

    Args:
        signal: the signal of its event.
        table: the table of that signal.
        handler: the handler.
        spec: how the handler is called.
        options: the options.
    """

    __slots__ = ("signal",)

    _described_as = " (bound)"

    def __init__(
        self,
        signal: Any,
        table: AnyTable,
        handler: object,
        spec: CallSpec,
        options: SubscriptionOptions,
    ) -> None:
        super().__init__(table, signal.name, handler, spec, options)
        self.signal = signal
        self._active = True

    def _hold_sender(self, sender: object) -> None:
        """Hold the sender strongly: no emission asks for it, so its end ends nothing."""
        self._sender_key = ANY if sender is ANY else sender_key(sender)
        self._sender, self._sender_is_weak = sender, False

    def _end(self, reason: EndReason | None) -> None:  # noqa: ARG002  # no table records it
        """End it; there is no table to leave."""
        self._active = False


BoundSubscription.__name__ = BoundSubscription.__qualname__ = "Subscription"  # for messages


def plan_delivery(subscription: Subscription, handler: object) -> Plan:
    """Return the plan of a delivery: one handler, which is called whatever its options ask.

    Args:
        subscription: the subscription; its sender, `when` and `once` are not asked.
        handler: its handler.
    """

    def return_handler(_emission: Emission) -> object:
        return handler

    def return_entry(_subscription: Subscription) -> Entry:
        return entry

    def return_name(_handler: object) -> str:
        return subscription.name

    entry = entry_of(subscription)._replace(match=return_handler, admit=return_handler)
    one, is_async = (subscription,), entry.spec.is_async
    to_await: Segments = ((BY_OPTIONS, (cast("Any", entry),)),)  # as `Subscription` prepares it
    return Plan(
        () if is_async else one,
        one if is_async else (),
        (),
        one,
        segments=(),  # the call is made with its observers, from the entry
        to_await=to_await if is_async else (),
        bound_to=None,
        entry_of=return_entry,
        name_of=return_name,
    )
