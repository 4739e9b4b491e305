"""Uses of names of events that nobody declares."""

from __future__ import annotations

import pytest

from madcrow_events.cli._application import ApplicationError
from madcrow_events.cli._errors import CommandError

EVENT = """
@signals.event
class OrderPlaced(BaseEventContext):
    order_id: int
register_handler(OrderPlaced, print)
"""


def test_all_handlers_of_undeclared_events_are_found(examine_app):
    """The import goes on after each, although the application itself would end there."""
    examined = examine_app(
        f"""{EVENT}
@on_event("order_plced")
def handle(): ...
signals.subscribe("order_gone", print)
emit_event("order_sold", order_id=7)
signals["order_found"]
"""
    )
    assert examined.kinds == {"undeclared_event"}
    assert examined.lines("undeclared_event") == [
        '@on_event("order_plced")',
        'signals.subscribe("order_gone", print)',
        'emit_event("order_sold", order_id=7)',
        'signals["order_found"]',
    ]
    first, second, third, _ = examined.of("undeclared_event")
    assert first["message"].endswith(".handle handles order_plced, and nobody declares that event")
    assert first["fix"].startswith("write order_placed, or declare it")
    assert second["message"].startswith("builtins.print handles order_gone")
    assert third["message"] == "order_sold is used, and nobody declares that event"


def test_without_a_similar_name_the_fix_is_to_declare_it(examine_app):
    """No name is invented."""
    (found,) = examine_app("register_handler('xylophone', print)").record["findings"]
    assert found["fix"] == "declare it in a module that is imported first"


def test_a_handler_that_comes_too_early_is_told_so(examine_app):
    """Its event is declared, in a module that is imported after it."""
    (found,) = examine_app(f"register_handler('order_placed', print)\n{EVENT}").record["findings"]
    assert found["kind"] == "undeclared_event"
    assert found["message"] == "builtins.print handles order_placed before that event is declared"
    assert found["fix"] == "import the module that declares it first"


CATCHING = {
    "a decorator": (
        "try:\n    @on_event('gone')\n    def handle(): ...\nexcept UnknownEventError:\n    pass"
    ),
    "try": "try:\n    on_event('gone')(print)\nexcept UnknownEventError:\n    pass",
    "a base": "try:\n    on_event('gone')(print)\nexcept (OSError, LookupError):\n    pass",
    "anything": "try:\n    on_event('gone')(print)\nexcept:\n    pass",
    "an alias": (
        "Unknown = UnknownEventError\ntry:\n    on_event('gone')(print)\nexcept Unknown:\n    pass"
    ),
    "a variable with several": (
        "MISSING = (UnknownEventError, ImportError)\n"
        "try:\n    on_event('gone')(print)\nexcept MISSING:\n    pass"
    ),
    "a group": "try:\n    on_event('gone')(print)\nexcept* UnknownEventError:\n    pass",
    "an attribute": (
        "import builtins\ntry:\n    on_event('gone')(print)\nexcept builtins.LookupError:\n    pass"
    ),
    "around the call": (
        "def wire():\n    on_event('gone')(print)\ntry:\n    wire()\nexcept Exception:\n    pass"
    ),
    "suppress": (
        "import contextlib\nwith contextlib.suppress(LookupError):\n    on_event('gone')(print)"
    ),
    "in a lambda": (
        "wire = lambda: on_event('gone')(print)\ntry:\n    wire()\nexcept Exception:\n    pass"
    ),
    "not yet": (
        "def wire():\n    try:\n        on_event('gone')(print)\n"
        "    except UnknownEventError:\n        pass"
    ),
}


@pytest.mark.parametrize("how", CATCHING)
def test_what_the_application_catches_is_meant(examine_app, how):
    """It gets the error that it waits for."""
    assert examine_app(CATCHING[how]).record["findings"] == []


NOT_CATCHING = {
    "another error": "try:\n    {}\nexcept (ImportError, OSError):\n    pass",
    "in the handler": "try:\n    1 / 0\nexcept ZeroDivisionError:\n    {}",
    "without a file": "exec({!r})",
    "in no Python": (
        "import pathlib\nname = __file__ + '.txt'\npathlib.Path(name).write_text('no Python')\n"
        "exec(compile({!r}, name, 'exec'))"
    ),
    "in a coroutine": ("import asyncio\nasync def wire():\n    {}\nasyncio.run(wire())"),
    "in a thread": (
        "import _thread, contextvars\nover = _thread.allocate_lock()\nover.acquire()\n"
        "def wire():\n    {}\n    over.release()\n"
        "_thread.start_new_thread(contextvars.copy_context().run, (wire,))\nover.acquire()"
    ),
}


@pytest.mark.parametrize("how", NOT_CATCHING)
def test_what_is_not_caught_is_found(examine_app, how):
    """And the import goes on."""
    source = NOT_CATCHING[how].format("on_event('gone')(print)")
    examined = examine_app(f"{source}\nsignals.signal('order_placed')")
    assert examined.kinds == {"undeclared_event", "unhandled_event"}


PERHAPS_CAUGHT = {
    "raised again": "try:\n    {}\nexcept Exception:\n    raise",
    "in a with": "from threading import Lock\nwith Lock():\n    {}",
}


@pytest.mark.parametrize("how", PERHAPS_CAUGHT)
def test_what_might_have_been_caught_is_found(examine_app, how):
    """Python raises the error there, so the import ends, and nothing else is blamed on it."""
    source = PERHAPS_CAUGHT[how].format("on_event('gone')(print)")
    assert examine_app(f"signals.signal('order_placed')\n{source}").kinds == {"undeclared_event"}


def test_a_name_in_a_function_that_was_not_called_is_found(examine_app):
    """Unless it is declared there, or belongs to another registry, or is an old name."""
    examined = examine_app(
        """
        signals.signal("mail_sent", formerly="mail_posted")
        own = SignalRegistry()
        def start(registry):
            registry.signal("declared_then")
            on_event("declared_then")(print)
            on_event("order_*")(print)
            on_event("mail-sent")(print)
            register_handler("handler_failed", print)
            register_handler("elsewhere", print, signals=own)
            register_handler("somewhere", print, **options)
            own.subscribe("elsewhere", print)
            registry.emit("whatever")
            emit_event("gone", order_id=7)
        """
    )
    assert examined.lines("undeclared_event") == ['emit_event("gone", order_id=7)']


DECLARED_LATER = {
    "by a decorator": "@signals.event\n    class Gone(BaseEventContext): ...",
    "by a name of a decorator": "@signals.event(name='gone')\n    class It(Base): ...",
    "with a model that is none": "signals.signal('gone', context='Gone')",
    "with a model that nobody knows": "signals.signal('gone', context=registry)",
    "by a module that is imported then": "from app import others",
    "by a module that is named then": "__import__('importlib').import_module(registry)",
    "by a name that nobody knows": "signals.signal(f'{registry}')",
}


@pytest.mark.parametrize("how", DECLARED_LATER)
def test_what_a_function_declares_is_no_finding(examine_app, how):
    """Neither in the function, nor for a pattern, a class or a group."""
    examined = examine_app(
        f"""
class Base(BaseEventContext): ...
def create_app(registry):
    {DECLARED_LATER[how]}
def send():
    emit_event("gone")
@on_event("go*")
def by_pattern(): ...
group = HandlerGroup("shop")
@group.on("gone")
def handle(): ...
""",
        others="",
    )
    assert examined.record["findings"] == []


GUARDS = {
    "in": "if 'gone' in signals:\n        emit_event('gone')",
    "get": "if signals.get('gone') is not None:\n        emit_event('gone')",
    "try": "try:\n        emit_event('gone')\n    except LookupError: ...",
    "suppress": "with suppress(LookupError):\n        emit_event('gone')",
    "suppress by another name": "with ignoring(LookupError):\n        emit_event('gone')",
}


@pytest.mark.parametrize("how", GUARDS)
def test_a_guarded_name_in_a_function_is_no_finding(examine_app, how):
    """The application knows that the event may be missing."""
    guarded = (
        f"from contextlib import suppress, suppress as ignoring\ndef send():\n    {GUARDS[how]}"
    )
    assert examine_app(guarded).record["findings"] == []


def test_look_ups_in_functions_are_found(examine_app):
    """In brackets and by `resolve`, unless another `with` than `suppress` is around them."""
    examined = examine_app(
        """
        def wire(lock, h):
            signals["order_nope"].connect(h)
            with lock, open(h):
                signals.resolve("order_nada").connect(h)
            signals[h].connect(h)
            h["gone"] = signals
        """
    )
    assert examined.subjects("undeclared_event") == ["order_nope", "order_nada"]


def test_a_name_is_looked_up_in_the_registry_of_the_call(examine_app):
    """Whether the registry, a dispatcher of it or the keyword `signals` says so."""
    examined = examine_app(
        """
        own = SignalRegistry()
        dispatcher = EventDispatcher(own)
        def start():
            on_event("gone", signals=own)(print)
            own.subscribe("lost", print)
            dispatcher.emit("left")
            dispatcher.drain("right")
            emit_event("elsewhere")
        """,
        ":own",
    )
    assert examined.subjects("undeclared_event") == ["gone", "lost", "left"]


def test_a_group_names_its_own_events_and_others(examine_app):
    """Registered or not, each handler is found at the line that adds it to the group."""
    examined = examine_app(
        """
        group = HandlerGroup("shop")
        group.signal("shop_opened")
        @group.on("shop_opened")
        @group.on("shop_closd")
        def handle(): ...
        group.register()
        other = HandlerGroup("other")
        @other.on("shop_opened")
        @other.on("street_closed")
        def handle_other(): ...
        """
    )
    assert examined.kinds == {"undeclared_event"}
    assert examined.subjects("undeclared_event") == ["shop_closd", "street_closed"]
    assert examined.lines("undeclared_event") == [
        '@group.on("shop_closd")',
        '@other.on("street_closed")',
    ]


def test_a_group_that_may_belong_to_another_registry_is_not_blamed(examine_app):
    """It is not registered yet; what it handles counts as handled all the same."""
    examined = examine_app(
        """
        own = SignalRegistry()
        own.signal("street_closed")
        signals.signal("shop_closed")
        group = HandlerGroup("street")
        @group.on("street_*")
        @group.on("street_closed")
        @group.on("shop_closed")
        def handle(): ...
        def start():
            group.register(own)
        """
    )
    assert examined.record["findings"] == []


def test_a_group_of_another_registry_is_not_examined(examine_app):
    """Its events are declared there."""
    examined = examine_app(
        """
        own = SignalRegistry()
        own.signal("street_closed")
        group = HandlerGroup("street")
        @group.on("street_closed")
        def handle(): ...
        group.register(own)
        """
    )
    assert examined.record["findings"] == []


def test_a_registry_that_is_not_strict_has_events_that_only_handlers_name(examine_app):
    """They are found at the handler."""
    examined = examine_app(
        """
        own = SignalRegistry(strict=False)
        own.signal("order_placed")
        own.subscribe("order_placed", print)
        @on_event("order_placd", signals=own)
        def handle(): ...
        own.subscribe("order_*", print)
        own.dispatcher.emit("order_seen")
        """,
        ":own",
    )
    assert "order_placd" in examined.subjects("undeclared_event")
    assert examined.lines("undeclared_event") == ['@on_event("order_placd", signals=own)']


def test_an_import_that_ends_at_an_unknown_event_is_a_finding(examine_app):
    """Nothing else is blamed: more may be handled and declared by what was not imported."""
    examined = examine_app(
        f"{EVENT}\nsignals.signal('order_sent')\n"
        "class Gone(BaseEventContext): ...\nemit_event(Gone())"
    )
    assert examined.kinds == {"undeclared_event"}
    assert examined.lines("undeclared_event") == ["emit_event(Gone())"]


def test_other_failures_end_the_command(examine_app):
    """As they end the other commands."""
    with pytest.raises(ApplicationError, match="ZeroDivisionError"):
        examine_app("1 / 0")
    with pytest.raises(CommandError, match="no attribute"):
        examine_app("", ":nothing")
