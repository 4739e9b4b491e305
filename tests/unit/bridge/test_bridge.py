"""What services send each other by a bridge: which events, whose, and each once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from madcrow_events import BaseEventContext, SignalRegistry, madcrow_signals
from madcrow_events.bridge import Bridge, MemoryBridge, MemoryBroker
from madcrow_events.exceptions import InvalidOptionError, MadcrowEventsError
from madcrow_events.models import LoginEventContext
from madcrow_events.outbox import NotSerialisableError, Outbox
from madcrow_events.testing import DrainReport
from support.outboxes import lines_of
from support.services import TOPIC, OrderPaid, OrderPlaced, Service, Unstorable, placed

PLACED = ("order_placed", 1)
PAID = ("order_paid", 1)


def deliver(*services: Service) -> None:
    """Let the services send and take in, until nothing is under way."""
    for _ in range(3):
        for it in services:
            it.drain()


# Which events


@pytest.mark.parametrize(
    ("outgoing", "incoming"),
    [
        ("name", "signal"),
        ("order-placed", "name"),
        ("signal", "pattern"),
        ("class", "order-placed"),
        ("pattern", "class"),
    ],
)
def test_events_go_out_and_come_in_as_they_were_declared(service, outgoing, incoming):
    """By the name of one, its signal, a context class or a pattern."""
    shop, shipping = service("shop"), service("shipping")
    forms = {"name": "order_placed", "class": OrderPlaced, "pattern": "order_pl*"}
    shop.bridge.outgoing({**forms, "signal": shop.placed}.get(outgoing, outgoing))
    shipping.bridge.incoming({**forms, "signal": shipping.placed}.get(incoming, incoming))
    shipping.listen()
    shop.emit(OrderPlaced(number=1), OrderPaid(number=1))
    deliver(shop, shipping)
    assert shipping.handled == [PLACED]


def test_what_does_not_go_out_is_not_sent(service, shipping):
    """Nor is what goes out taken in by a service that does not ask for it."""
    shop = service("shop")
    shop.bridge.outgoing("order_paid")
    shop.emit(OrderPlaced(number=1), OrderPaid(number=1))
    deliver(shop, shipping)
    assert shipping.handled == []


class OrderPlacedOnline(OrderPlaced):
    pass


@pytest.mark.parametrize("event", ["order_*", OrderPlaced])
def test_events_that_are_declared_later_go_out_and_come_in_too(service, event):
    """If a pattern or a class means them."""
    shop, shipping = service("shop"), service("shipping")
    shop.bridge.outgoing(event)
    shipping.bridge.incoming(event)
    for it in (shop, shipping):
        it.signals.signal("order_placed_online", context=OrderPlacedOnline)
    shipping.listen("order_placed_online")
    shop.emit(OrderPlacedOnline(number=1))
    deliver(shop, shipping)
    assert shipping.handled == [("order_placed_online", 1)]


def test_an_event_that_a_pattern_means_waits_until_it_is_declared(shop, service):
    """It is taken in at once, and lost by nobody."""
    late = service("late", signals=SignalRegistry())
    del late.signals["order_placed"]
    late.bridge.incoming("order_*")
    shop.emit(OrderPlaced(number=1, customer="a"))
    deliver(shop, late)
    (waiting,) = late.outbox.inspect(late.engine).status().set_aside
    assert (waiting.event, waiting.count) == ("order_placed", 1)
    late.signals.signal("order_placed", context=OrderPlaced, key="customer")
    late.listen("order_placed")
    deliver(late)
    assert late.handled == [PLACED]


def test_an_event_that_nobody_handles_yet_is_kept(shop, shipping, service):
    later = service("later")
    later.bridge.incoming(OrderPlaced)
    shop.emit(OrderPlaced(number=1))
    deliver(shop, later)
    later.listen()
    deliver(later)
    assert later.handled == [PLACED]


def test_an_event_may_have_another_name_in_another_service(shop, service):
    """An earlier one, as long as not all services are deployed."""
    newer = service("newer", signals=SignalRegistry())
    del newer.signals["order_placed"]
    newer.signals.signal("order_began", context=OrderPlaced, formerly="order_placed")
    newer.bridge.incoming("order_began")
    newer.listen("order_began")
    shop.emit(OrderPlaced(number=1))
    deliver(shop, newer)
    assert newer.handled == [("order_began", 1)]


def test_what_waits_to_be_sent_is_sent_by_the_code_that_renames_its_event(shop, service):
    """Once each; by the old name if its delivery was made by the older code."""
    shipping = service("shipping")
    shipping.bridge.incoming("order_*")
    shop.emit(OrderPlaced(number=1))
    shop.drain(fail={"bridge:shop:order_placed": ConnectionError()})
    shop.emit(OrderPlaced(number=2))
    newer = service("shop", engine=shop.engine)
    del newer.signals["order_placed"]
    newer.signals.signal("order_began", context=OrderPlaced, formerly="order_placed")
    newer.bridge.outgoing("order_began")
    deliver(newer, shipping)
    waiting = shipping.outbox.inspect(shipping.engine).status().set_aside
    assert sorted((it.event, it.count) for it in waiting) == [
        ("order_began", 1),
        ("order_placed", 1),
    ]


@pytest.fixture
def logging_in(service):
    """Return a service that has the events of this package."""
    return service("shop", signals=madcrow_signals)


LOGIN = {"type": "user_logged_in", "data": b'{"user_id": 1, "email": "m@example.org"}'}


def test_events_of_this_package_go_out_by_their_names_only(logging_in, service, broker):
    """Else a pattern would send who has logged in to everybody."""
    other = service("other", signals=SignalRegistry())
    other.signals.signal("user_logged_in", context=BaseEventContext)
    other.bridge.incoming("user_logged_in")
    login = LoginEventContext(user_id=1, email="a@example.org")
    for event in ("*", BaseEventContext, "user_*"):
        logging_in.bridge.outgoing(event)
    logging_in.emit(login)
    deliver(logging_in, other)
    assert other.outbox.inspect(other.engine).status().set_aside == ()
    logging_in.bridge.outgoing("user_logged_in")
    logging_in.emit(login)
    deliver(logging_in, other)
    (waiting,) = other.outbox.inspect(other.engine).status().set_aside
    assert waiting.event == "user_logged_in"


def test_events_of_this_package_come_in_by_their_names_only(logging_in, broker, caplog):
    """Else everybody who may publish could pretend that somebody has logged in."""
    logging_in.bridge.incoming("*")
    logging_in.bridge.incoming(BaseEventContext)
    logging_in.outbox.on("user_logged_in", id="greet")(lambda: logging_in.handled.append(PAID))
    broker.publish(TOPIC, *placed(1, "/evil", **LOGIN))
    deliver(logging_in)
    assert logging_in.handled == []
    (line,) = lines_of(caplog)
    assert "write bridge.incoming('user_logged_in') if others may send it" in line
    logging_in.bridge.incoming("user_logged_in")
    broker.publish(TOPIC, *placed(1, "/evil", **LOGIN))
    deliver(logging_in)
    assert logging_in.handled == [PAID]


def test_what_others_send_is_not_declared_by_that(service, broker):
    """Even where the first use of a name declares an event."""
    loose = service("loose", signals=SignalRegistry(strict=False))
    loose.bridge.incoming("order_*")
    broker.publish(TOPIC, *placed(1, type="order_of_mallory"))
    deliver(loose)
    assert "order_of_mallory" not in loose.signals


# Whose events


def test_events_come_in_from_the_sources_that_are_named(service, broker, caplog):
    """Of others, a line says that they were refused."""
    shipping = service("shipping")
    shipping.bridge.incoming("order_placed", sources=("/shop", "/web"))
    shipping.bridge.incoming("order_*", sources=("/till",))
    shipping.listen()
    for number, source in enumerate(("/shop", "/web", "/till", "/evil"), 1):
        broker.publish(TOPIC, *placed(number, source))
    broker.publish(TOPIC, *placed(5, "/shop", type="order_paid"))
    deliver(shipping)
    assert shipping.handled == [("order_placed", it) for it in (1, 2, 3)]
    assert [it.split(": ", 1)[1] for it in lines_of(caplog)] == [
        "its source '/evil' is none of those from which order_placed comes in",
        "its source '/shop' is none of those from which order_paid comes in",
    ]


@pytest.mark.parametrize("names", [("one", "two"), ("one", "two", "three")])
def test_services_that_send_and_take_in_the_same_events_make_no_echo(service, names, caplog):
    """Nobody gets an event twice, or its own back, also in a ring of three."""
    services = [service(it) for it in names]
    for it in services:
        it.bridge.outgoing("order_*")
        it.bridge.incoming("order_*")
        it.listen()
    for number, it in enumerate(services):
        it.emit(OrderPlaced(number=number))
    deliver(*services)
    everything = [("order_placed", it) for it in range(len(names))]
    assert [sorted(it.handled) for it in services] == [everything] * len(names)
    assert [it.drain() for it in services] == [DrainReport(0, 0, 0)] * len(names)
    assert lines_of(caplog) == []


def test_what_was_taken_in_is_handed_on_by_nobody(service, caplog):
    """Also in a line of services of which each takes in from the one before only.

    The third one refuses what the first has sent, and hears of it once.
    """
    first, second, third = (service(it) for it in ("first", "second", "third"))
    second.bridge.incoming("order_placed", sources=("/first",))
    third.bridge.incoming("order_placed", sources=("/second",))
    for it in (first, second):
        it.bridge.outgoing("order_placed")
    third.listen()
    second.listen()
    first.emit(OrderPlaced(number=1))
    deliver(first, second, third)
    assert (second.handled, third.handled) == ([PLACED], [])
    (line,) = lines_of(caplog)
    assert "the bridge of third refuses" in line


def test_a_handler_knows_what_the_other_service_has_said(shop, shipping):
    """The ids, the sender and the scope of the emission are its own service's."""
    (id_,) = shop.emit(OrderPlaced(number=1, customer="a"))
    deliver(shop, shipping)
    (seen,) = shipping.seen
    said = {"source": "/shop", "id": id_, "type": "order_placed", "partitionkey": "a"}
    assert said.items() <= seen.origin.items()
    assert str(seen.id) != id_
    assert seen.correlation_id == seen.id


# What cannot be sent


@pytest.mark.parametrize(
    ("bad", "sender", "error"),
    [
        ({"customer": "a", "note": "x" * 1024 * 1024}, None, "MessageTooLargeError"),
        ({"customer": "a"}, "x" * 5000, "InvalidCloudEventError"),
    ],
)
def test_an_event_that_no_message_can_carry_is_dead(shop, shipping, bad, sender, error):
    """There is no use in trying again; people see it, and can discard it."""
    with shop.engine.begin() as connection:
        shop.outbox.emit(connection, OrderPlaced(number=1, **bad), sender=sender)
        shop.outbox.emit(connection, OrderPlaced(number=2, customer="b"))
    assert shop.drain() == DrainReport(1, 1, 0)
    (dead,) = shop.outbox.inspect(shop.engine).dead()
    assert (dead.handler, dead.error_type) == ("bridge:shop:order_placed", error)
    deliver(shipping)
    assert shipping.handled == [("order_placed", 2)]


def test_an_event_whose_values_were_removed_is_dead(shop, shipping):
    """Others would get an event without data; those behind it wait, as for any that is dead."""
    (id_,) = shop.emit(OrderPlaced(number=1))
    shop.drain(fail={"bridge:shop:order_placed": ConnectionError()})
    shop.outbox.inspect(shop.engine).redact(id_)
    shop.emit(OrderPlaced(number=2, customer="b"))
    assert shop.drain() == DrainReport(1, 1, 0)
    (dead,) = shop.outbox.inspect(shop.engine).dead()
    assert dead.error_type == "MalformedPayloadError"
    deliver(shipping)
    assert shipping.handled == [("order_placed", 2)]


def test_events_of_one_key_are_sent_up_to_the_first_that_cannot_be(service, broker):
    """They are sent many at once, and keep their order; `decode` may raise anything."""

    def decode(text: str) -> str:
        if '"number":3' in text:
            raise LookupError("hunter2")
        return text

    shop = service("shop", decode=decode)
    shop.bridge.outgoing("order_placed")
    shipping = service("shipping")
    shipping.bridge.incoming("order_placed")
    shipping.listen()
    shop.emit(*(OrderPlaced(number=it, customer="a") for it in range(1, 6)))
    assert shop.drain() == DrainReport(2, 0, 1)
    deliver(shipping)
    assert [it[1] for it in shipping.handled] == [1, 2]


def test_the_largest_event_arrives(shop, shipping):
    size = len(OrderPlaced(number=1).model_dump_json(round_trip=True))
    shop.emit(OrderPlaced(number=1, note="x" * (1024 * 1024 - size - 200)))
    deliver(shop, shipping)
    assert shipping.handled == [PLACED]


def test_an_event_whose_contexts_cannot_be_stored_does_not_go_out(service):
    """It is refused as `outbox.on` refuses it."""
    shop = service("shop")
    shop.signals.signal("order_odd", context=Unstorable)
    with pytest.raises(NotSerialisableError, match="order_odd"):
        shop.bridge.outgoing("order_odd")


# What is refused at the declaration


@pytest.mark.parametrize("event", ["order_shipped", "Order Placed", OrderPlacedOnline, "Order*"])
@pytest.mark.parametrize("direction", ["outgoing", "incoming"])
def test_what_is_no_event_is_refused(service, direction, event):
    """A class of no event yet may be one of those to come."""
    declare = getattr(service("shop").bridge, direction)
    if isinstance(event, type):
        declare(event)
        return
    with pytest.raises(MadcrowEventsError):
        declare(event)


@pytest.mark.parametrize("sources", ["/shop", [], (), ["/shop"], (1,), {"/shop"}])
def test_sources_must_be_a_tuple_of_texts(service, sources):
    """A text would be a tuple of its characters, and an empty one would let nothing in."""
    with pytest.raises(InvalidOptionError, match="such as \\('/shop',\\), or None") as caught:
        service("shipping").bridge.incoming("order_placed", sources=sources)
    assert caught.value.option == "sources"


@pytest.mark.parametrize(
    ("option", "value", "fix"),
    [
        ("consumer", "", "such as 'shipping'"),
        ("consumer", "a.b", "such as 'shipping'"),
        ("consumer", "a\n", "such as 'shipping'"),
        ("consumer", "x" * 65, "up to 64"),
        ("consumer", None, "such as 'shipping'"),
        ("topic", "a b", "such as 'shipping'"),
        ("topic", 7, "topic must be a text"),
        ("inbox", "memory", "'outbox' or None"),
        ("inbox", True, "'outbox' or None"),
        ("lease", 0, "lease"),
        ("lease", -1.0, "lease"),
        ("lease", "10", r"above 0, such as 2\.5$"),
        ("lease", float("nan"), "lease"),
        ("lease", None, r"above 0, such as 2\.5$"),
        ("lease", True, "lease"),
        ("retention", 7, r"timedelta\(days=7\)"),
        ("retention", timedelta(0), r"timedelta\(days=7\)"),
    ],
)
def test_impossible_options_are_refused(broker, option, value, fix):
    """With what would be possible."""
    options = {"consumer": "shop", option: value}
    with pytest.raises(InvalidOptionError, match=fix) as caught:
        MemoryBridge(Outbox("/shop", signals=SignalRegistry()), broker, **options)
    assert caught.value.option == option


def test_a_bridge_needs_an_outbox_or_to_be_told_that_it_has_none(broker, signals):
    """Because events are then handled at least once, and not once."""
    with pytest.raises(InvalidOptionError, match="an Outbox, or, with inbox=None") as caught:
        MemoryBridge("shop", broker, consumer="shop")
    assert caught.value.option == "outbox"
    with pytest.raises(InvalidOptionError, match="say so by inbox=None") as caught:
        MemoryBridge(signals, broker, consumer="shop")
    assert caught.value.option == "inbox"


def test_a_bridge_needs_a_broker_that_it_knows(broker):
    """By its class, or one that this derives from; the error says which there are."""
    outbox = Outbox("/shop", signals=SignalRegistry())
    with pytest.raises(InvalidOptionError, match="of FastStream, not str: for tests") as caught:
        Bridge(outbox, "nats://localhost", consumer="shop")
    assert caught.value.option == "broker"
    with pytest.raises(InvalidOptionError, match="must be a MemoryBroker") as caught:
        MemoryBridge(outbox, "memory", consumer="shop")
    assert caught.value.option == "broker"

    class OwnBroker(MemoryBroker):
        pass

    assert repr(Bridge(outbox, OwnBroker(), consumer="shop")) == "<Bridge shop>"


def test_an_outbox_has_one_bridge_of_a_name(shop, broker):
    """Else one of them would send, and the other would not."""
    with pytest.raises(InvalidOptionError, match="give this one another consumer") as caught:
        MemoryBridge(shop.outbox, broker, consumer="shop")
    assert caught.value.option == "consumer"
    other = MemoryBridge(shop.outbox, broker, consumer="shop2")
    other.outgoing("order_placed")
    assert shop.outbox.handlers == ("bridge:shop:order_placed", "bridge:shop2:order_placed")
