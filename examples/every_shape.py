"""Handlers of every form of `docs/reference/handler-forms.md`: one of each, to copy.

Run it with `python examples/every_shape.py`. Each handler returns what it was
given, and the program prints what the handlers of three events returned. Most
programs need only the first form.
"""
# ruff: noqa: D102, D103  # what a handler returns is its description

from functools import partial

from madcrow_events import (
    BaseEventContext,
    Batch,
    Emission,
    GenericEventContext,
    emit_event,
    get_event_dispatcher,
    madcrow_signals,
    on_event,
    register_handler,
)


class OrderEvent(BaseEventContext):
    """What the events of an order have in common; it is no event itself."""

    order_id: int


@madcrow_signals.event
class OrderPlaced(OrderEvent):
    """A customer placed an order."""

    total: float


@madcrow_signals.event
class OrderPaid(OrderEvent):
    """An order was paid."""


madcrow_signals.signal("order_noted", "Somebody wrote a note; it has no model.")

# By class: type checkers compare the handler with the class.


@on_event(OrderPlaced)
def take_context(context: OrderPlaced) -> str:
    return f"the context: order {context.order_id}"


@on_event(OrderPlaced)
def take_emission(emission: Emission[OrderPlaced]) -> str:
    return f"the emission: {emission.event}, order {emission.context.order_id}"


@on_event(OrderPlaced)
def take_keywords(sender: object, **context: object) -> str:
    return f"the sender and all fields: {sender}, {context['order_id']}, {context['total']}"


@on_event(OrderPlaced)
def take_nothing() -> str:
    return "nothing"


# By name: the handler may take fields by name. Type checkers do not check these.


@on_event("order_placed")
def take_fields(order_id: int, request_id: str | None = None) -> str:
    return f"fields by name, one with a default: {order_id}, {request_id}"


@on_event("order_placed")
def take_sender_and_field(sender: object, order_id: int) -> str:
    return f"the sender and a field: {sender}, {order_id}"


@on_event("order_placed")
def take_field_and_rest(sender: object, order_id: int, **rest: object) -> str:
    return f"the sender, a field and the rest: {sender}, {order_id}, {rest['total']}"


@on_event("order_placed")
def mix(sender: object, context: OrderPlaced, order_id: int, **rest: object) -> str:
    return f"a mixture: {sender}, {context.total}, {order_id}, {rest['total']}"


# For several events.


@on_event(OrderPlaced)
@on_event(OrderPaid)
def take_union(context: OrderPlaced | OrderPaid) -> str:
    return f"one of two contexts: {type(context).__name__}"


@on_event(OrderEvent)
def take_base(context: OrderEvent) -> str:
    return f"a context of this class or one derived from it: {type(context).__name__}"


@on_event("order_*")
def take_any(context: BaseEventContext) -> str:
    return f"whatever the pattern fits: {type(context).__name__}"


@on_event("order_noted")
def take_generic(context: GenericEventContext) -> str:
    return f"a context without a model: {context.data}"


# Each form may be async, or run in the background. With `batch`, a handler takes a list.


@on_event(OrderPlaced)
async def take_async(context: OrderPlaced) -> str:
    return f"the context, async: order {context.order_id}"


@on_event(OrderPlaced, background=True)
def take_in_background(context: OrderPlaced) -> str:
    return f"the context, in a thread: order {context.order_id}"


@on_event(OrderEvent, batch=Batch())
def take_contexts(contexts: list[OrderEvent]) -> str:
    return f"a list of contexts: {[type(context).__name__ for context in contexts]}"


# A handler may be any callable.


class Mailer:
    """As a handler, a bound method such as `mailer.send` ends with its object."""

    def send(self, context: OrderPlaced) -> str:
        return f"the context, in a method: order {context.order_id}"

    def __call__(self, context: OrderPlaced) -> str:
        return f"the context, in an object that can be called: order {context.order_id}"


def send_to(address: str, context: OrderPlaced) -> str:
    return f"the context, in a partial for {address}: order {context.order_id}"


mailer = Mailer()
register_handler(OrderPlaced, mailer.send)
register_handler(OrderPlaced, mailer)
register_handler(OrderPlaced, partial(send_to, "ada@example.com"))
register_handler(OrderPlaced, lambda: "nothing, in a lambda")


def main() -> None:
    """Emit three events, wait for what runs in the background, and print what was returned."""
    emissions = [
        emit_event(OrderPlaced(order_id=7, total=12.5)),
        emit_event(OrderPaid(order_id=7)),
        emit_event("order_noted", text="a gift"),
    ]
    get_event_dispatcher().drain()
    for emission in emissions:
        print(emission.event)
        for result in emission.results:
            print("   ", result.value)


if __name__ == "__main__":
    main()
