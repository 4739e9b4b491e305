"""Importing the application that the command looks at."""

from __future__ import annotations

import pytest

from madcrow_events import EventDispatcher, HandlerGroup, madcrow_signals
from support.command import SHOP, Command, command

__all__ = ["command"]


def test_the_events_of_an_application_are_found_in_its_folder(command: Command):
    """--app-dir puts the folder on the path; nothing else does."""
    command.write(shop=SHOP)
    missing = command("events", "--app", "shop")
    assert missing.status == 2
    assert "no module is called shop" in missing.err
    assert "--app-dir ." in missing.err
    found = command("events", "--json", app="shop")
    assert (found.status, found.err) == (0, "")
    assert {"order_placed", "order_paid", "stock_low"} <= {it["event"] for it in found.record}


def test_an_application_can_see_that_it_is_only_looked_at(command: Command):
    """MADCROW_EVENTS_INSPECT is 1 while it is imported; not if it emits, for which it works."""
    command.write(
        cautious="""
            import os
            from madcrow_events import madcrow_signals
            value = os.environ["MADCROW_EVENTS_INSPECT"]
            madcrow_signals.signal("asked", f"It was {value}.")
        """
    )
    assert command("show", "asked", "--json", app="cautious").record["event"]["description"] == (
        "It was 1."
    )


def test_an_application_that_emits_is_not_only_looked_at(command: Command):
    """It needs its connections then."""
    command.write(
        working="""
            import os
            from madcrow_events import madcrow_signals, on_event
            madcrow_signals.signal("asked")
            on_event("asked")(lambda: os.environ["MADCROW_EVENTS_INSPECT"])
        """
    )
    (call,) = command("emit", "asked", "--yes", "--json", app="working").record["handlers"]
    assert call["value"] == "0"


def test_what_an_application_prints_does_not_mix_with_the_output(command: Command):
    """It goes to the standard error."""
    command.write(talkative="print('hello from the application')")
    found = command("events", "--json", app="talkative")
    assert found.record
    assert found.err.startswith("hello from the application\n")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero\n  "),
        ("raise ValueError", "raised ValueError\n  "),
        ("import sys\nsys.exit(7)", "ended the process, with status 7\n  "),
        ("import sys\nsys.exit()", "ended the process, with status 0\n  "),
        ("import sys\nsys.exit('no disk')", "ended the process, with the message: no disk\n  "),
        ("raise ValueError('first\\nsecond \\x1b[31m')", "ValueError: first\nsecond \\x1b[31m\n"),
        ("def (", "SyntaxError: "),
        ("import nothing_like_this", "ModuleNotFoundError: No module named 'nothing_like_this'"),
        ("raise BaseException('odd')", "BaseException: odd"),
    ],
    ids=[
        "raises",
        "no text",
        "exits",
        "exits well",
        "exits with text",
        "text",
        "is no Python",
        "lacks a module",
        "odd",
    ],
)
def test_an_exception_of_the_application_is_shown_as_theirs(
    command: Command, source: str, told: str
):
    """With the line where it was raised, and without a traceback of ours."""
    command.write(broken=source)
    ended = command("events", app="broken")
    assert ended.status == 3
    assert ended.err.startswith("madcrow-events: importing broken ")
    assert told in ended.err
    assert f"broken.py:{source.count(chr(10)) + 1}" in ended.err
    assert "Traceback" not in ended.err
    assert "_application.py" not in ended.err


def test_an_exception_without_a_line_of_theirs_is_shown_too(command: Command):
    """As where the source of a module is no text."""
    (command.folder / "binary.py").write_bytes(b"\0")
    ended = command("events", app="binary")
    assert ended.status == 3
    assert "SyntaxError" in ended.err


def test_an_endless_recursion_is_cut(command: Command):
    """Its last lines say enough."""
    command.write(deep="def dig():\n    dig()\ndig()")
    told = command("events", app="deep").err
    assert "RecursionError" in told
    assert told.count("deep.py:2, in dig") == 20
    assert "  ...\n" in told


def test_ctrl_c_while_the_application_is_imported_says_where(command: Command):
    """The status is that of shells."""
    command.write(slow="raise KeyboardInterrupt")
    ended = command("events", app="slow")
    assert ended.status == 130
    assert ended.err.startswith("madcrow-events: interrupted at ")
    assert ended.err.endswith("slow.py:1\n")


@pytest.mark.parametrize(
    ("app", "told"),
    [
        ("shop/events.py", "write it as in --app shop.events\n"),
        ("shop/events.py:make", "write it as in --app shop.events:make\n"),
        ("../shop/events.py", "write it as in --app shop.events\n"),
        ("shop.py", "write it as in --app shop\n"),
        ("./shop.py", "write it as in --app shop\n"),
        ("", "write it as in --app shop.events"),
        ("shop-events", "write it as in --app shop.events"),
        ("shop:registri", "shop has no attribute 'registri': did you mean registry?"),
        ("shop:nothing", "shop has no attribute 'nothing'\n"),
        ("shop.nothing", "shop has no module nothing\n"),
        ("email.parse", "email has no module parse: did you mean email.parser?"),
        ("email.zzz", "email has no module zzz\n"),
        ("nowhere.nothing", "no module is called nowhere.nothing: install the application"),
    ],
)
def test_an_application_that_is_named_wrongly(command: Command, app: str, told: str):
    """The message says what to write."""
    command.write(shop="registry = 1")
    ended = command("events", app=app)
    assert ended.status == 2
    assert told in ended.err


def test_a_folder_that_does_not_exist(command: Command):
    """It is named."""
    ended = command("events", "--app", "shop", "--app-dir", "nowhere")
    assert ended.status == 2
    assert "--app-dir nowhere is no folder" in ended.err


@pytest.mark.parametrize("attribute", ["registry", "dispatcher", "make", "Holder.registry"])
def test_the_attribute_names_a_registry_a_dispatcher_or_a_factory(command: Command, attribute: str):
    """Of a registry of its own, the events are listed; a factory is called."""
    command.write(
        own="""
            from madcrow_events import EventDispatcher, SignalRegistry
            registry = SignalRegistry()
            dispatcher = EventDispatcher(registry)
            registry.signal("own_thing")
            class Holder:
                registry = registry
            def make():
                return registry
        """
    )
    found = command("events", "--json", app=f"own:{attribute}")
    assert [it["event"] for it in found.record] == ["own_thing"]


def test_other_registries_of_the_application_are_pointed_out(command: Command):
    """Nobody would find their events otherwise."""
    command.write(
        own="""
            from madcrow_events import SignalRegistry, madcrow_signals
            registry = SignalRegistry()
        """
    )
    for subcommand in ("events", "handlers"):
        told = command(subcommand, app="own").err
        assert told == "The application has a registry of its own: --app own:registry\n"
        assert command(subcommand, app="own:registry").err == ""


def test_an_application_that_is_made_by_a_function_is_pointed_out(command: Command):
    """Its import alone declares nothing."""
    command.write(
        late="""
            from madcrow_events import madcrow_signals
            def helper(): ...
            def create_app(): madcrow_signals.signal("late_thing")
        """,
        empty="",
        handling="from madcrow_events import on_event\non_event('user_logged_in')(lambda: None)",
    )
    assert "name it: --app late:create_app\n" in command("events", app="late").err
    assert "name it: --app empty:create_app\n" in command("events", app="empty").err
    assert command("events", app="handling").err == ""
    assert command("events", app="late:create_app").err == ""


def test_an_async_factory_is_refused(command: Command):
    """No event loop runs here."""
    command.write(late="async def create_app(): ...")
    ended = command("events", app="late:create_app")
    assert (ended.status, ended.out) == (2, "")
    assert "create_app is async: name a plain function" in ended.err


def test_a_factory_may_return_anything(command: Command):
    """What it has declared in the default registry is listed; another function is not called."""
    command.write(
        factory="""
            from madcrow_events import madcrow_signals
            def make(*arguments, debug=False, **settings):
                madcrow_signals.signal("made_thing")
                return "an application"
            def application(environ, start_response):
                raise AssertionError
        """
    )
    assert "made_thing" not in command("events", app="factory:application").out
    assert "made_thing" in command("events", app="factory:make").out


@pytest.mark.parametrize("attribute", ["odd", "holder.broken", "liar", "Maker.create"])
def test_attributes_that_raise_or_lie_end_well(command: Command, attribute: str):
    """What the look-up raises is the application's; a class method may make the application."""
    command.write(
        shifty="""
            from madcrow_events import madcrow_signals
            class Holder:
                @property
                def broken(self): raise RuntimeError("no holder")
            holder = Holder()
            class Liar:
                @property
                def __class__(self): raise RuntimeError("no class")
            liar = Liar()
            class Maker:
                @classmethod
                def create(cls): madcrow_signals.signal("made_thing")
            def __getattr__(name): raise RuntimeError(f"no {name}")
        """
    )
    ended = command("events", app=f"shifty:{attribute}")
    fails = attribute in ("odd", "holder.broken")
    assert ended.status == (3 if fails else 0)
    assert ("raised RuntimeError: no " in ended.err) is fails
    assert "Traceback" not in ended.err
    assert ("made_thing" in ended.out) is (attribute == "Maker.create")


def test_a_factory_that_fails_is_shown_as_theirs(command: Command):
    """As an exception at the import is."""
    command.write(factory="def make():\n    raise LookupError('no settings')")
    ended = command("events", app="factory:make")
    assert ended.status == 3
    assert "calling make() raised LookupError: no settings" in ended.err
    assert "factory.py:2, in make" in ended.err


def test_an_emission_goes_through_the_dispatcher_that_is_named(command: Command):
    """A registry may have several."""
    command.write(
        own="""
            from madcrow_events import EventDispatcher, SignalRegistry, TimingObserver
            registry = SignalRegistry()
            other = EventDispatcher(registry)
            dispatcher = EventDispatcher(registry)
            timings = TimingObserver()
            dispatcher.add_observer(timings)
            registry.signal("own_thing").subscribe(lambda: len(timings.snapshot().events))
        """
    )
    for attribute, seen in (("dispatcher", 1), ("registry", 1), ("other", 1)):
        emitted = command("emit", "own_thing", "--yes", "--json", app=f"own:{attribute}")
        assert emitted.record["handlers"][0]["value"] == seen


def test_plugins_are_loaded_if_asked_for(command: Command, monkeypatch: pytest.MonkeyPatch):
    """After the application, whose events they may need."""
    group = HandlerGroup("extra")
    group.signal("extra_thing")
    monkeypatch.setattr("madcrow_events.plugins.load_plugins", group.register)
    assert "extra_thing" not in command("events").out
    assert "extra_thing" in command("events", "--plugins").out
    assert "extra_thing" in madcrow_signals
    assert isinstance(madcrow_signals.dispatcher, EventDispatcher)
