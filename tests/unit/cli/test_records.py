"""What the command says of events and handlers."""

from __future__ import annotations

import functools

import pytest

from madcrow_events.cli._places import line_of, line_of_class
from support.command import SHOP, Command, command

__all__ = ["command"]


def test_events_are_listed_by_name(command: Command):
    """With everything that was declared, and how many handlers listen."""
    found = command.write(shop=SHOP)("events", "--json", app="shop")
    names = [it["event"] for it in found.record]
    assert names == sorted(names)
    by_name = {it["event"]: it for it in found.record}
    assert by_name["order_placed"] == {
        "event": "order_placed",
        "description": "A customer placed an order.",
        "model": "shop.OrderPlaced",
        "key": "order_id",
        "formerly": ["order_made"],
        "handlers": 4,
        "built_in": False,
        "file": str(command.folder / "shop.py"),
        "line": by_name["order_placed"]["line"],
    }
    assert by_name["stock_low"]["model"] is None
    assert by_name["order_paid"]["handlers"] == 1
    assert by_name["user_logged_in"]["built_in"]
    assert by_name["user_logged_in"]["file"] is None


def test_a_key_may_be_a_function(command: Command):
    """Its name is shown."""
    command.write(
        keyed="""
            from madcrow_events import madcrow_signals
            def by_customer(context): ...
            madcrow_signals.signal("keyed_thing", key=by_customer)
        """
    )
    (found,) = command("events", "keyed_thing", "--json", app="keyed").record
    assert found["key"] == "keyed.by_customer"
    assert "keyed.by_customer" in command("events", "keyed_thing", app="keyed").out


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("order_*", ["order_paid", "order_placed"]),
        ("order-*", ["order_paid", "order_placed"]),
        ("order_placed", ["order_placed"]),
        ("order-placed", ["order_placed"]),
        ("order_made", ["order_placed"]),
        ("*_made", ["order_placed"]),
    ],
)
def test_a_pattern_chooses_events(command: Command, pattern: str, found: list[str]):
    """As in `on_event`, by old names, too; a name is that of one event."""
    command.write(shop=SHOP)
    for subcommand in ("events", "handlers"):
        ended = command(subcommand, pattern, "--json", app="shop")
        assert [it["event"] for it in ended.record] == found


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("order_placd", "no event is called 'order_placd': did you mean order_placed"),
        ("xyzzy", "no event is called 'xyzzy'\n"),
        ("xyzzy_*", "no event matches 'xyzzy_*'"),
        ("Order Placed", "'Order Placed' is not the name of an event"),
        ("Order*", "'Order*' is not the name of an event"),
    ],
)
def test_a_name_that_no_event_has(command: Command, name: str, told: str):
    """Similar ones are suggested."""
    ended = command.write(shop=SHOP)("handlers", name, app="shop")
    assert (ended.status, ended.out) == (2, "")
    assert told in ended.err


def test_without_an_application_the_command_says_how_to_name_one(command: Command):
    """There are the built-in events only."""
    assert "only the built-in events are declared" in command("show", "xyzzy").err
    assert "To see yours, name your application: --app shop.events" in command("events").err
    assert "To see yours" in command("handlers").err


def test_a_registry_that_is_not_strict_declares_nothing_here(command: Command):
    """Looking is no use of a name."""
    command.write(
        loose="from madcrow_events import SignalRegistry\nregistry = SignalRegistry(strict=False)"
    )
    assert command("handlers", "new_thing", app="loose:registry").status == 2
    assert "No event is declared." in command("handlers", app="loose:registry").out


def test_handlers_are_listed_in_calling_order(command: Command):
    """Each with its options, and where it stands."""
    found = command.write(shop=SHOP)("handlers", "order_placed", "--json", app="shop")
    (event,) = found.record
    assert (event["event"], event["model"]) == ("order_placed", "shop.OrderPlaced")
    names = ["count", "shop.send_mail", "shop.thank_for_big_order", "shop.write_audit"]
    assert [it["name"] for it in event["handlers"]] == names
    count, mail, big, audit = event["handlers"]
    assert (count["id"], count["priority"], count["mode"]) == ("count", 5, "inline")
    assert count["function"] == "shop.count_order"
    assert (mail["mode"], mail["timeout"]) == ("awaited", 5)
    assert (big["mode"], big["condition"]) == ("background", "shop.<lambda>")
    assert (audit["mode"], audit["pattern"]) == ("batch", "order_*")
    lines = SHOP.splitlines()
    for it in event["handlers"]:
        assert it["file"] == str(command.folder / "shop.py")
        function = it["function"].rpartition(".")[2]
        assert function in "".join(lines[it["line"] - 1 : it["line"] + 2])


def test_a_tree_shows_what_is_not_the_default(command: Command):
    """For people, each handler is a line."""
    command.write(
        odd="""
            from madcrow_events import HandlerGroup, madcrow_signals
            thing = madcrow_signals.signal("odd_thing")
            silent = madcrow_signals.signal("silent_thing")
            class Desk:
                def hear(self): ...
            desk = Desk()
            thing.subscribe(desk.hear, once=True)
            thing.subscribe(lambda: None, id="raising", on_error="raise", sender="web shop")
            thing.subscribe(print, weak=False)
            group = HandlerGroup("audit")
            @group.on("odd_*")
            def note(): ...
            group.register()
        """
    )
    told = command("handlers", app="odd").out
    assert "1. odd.Desk.hear: inline, once, while its object lives  " in told
    assert "2. raising (odd.<lambda>): inline, failures are raised, for 'web shop' only  " in told
    assert "3. builtins.print: inline\n" in told
    assert "4. odd.note: inline, by odd_*, of group audit  " in told
    assert "odd.py:12" in told
    assert "without handlers: silent_thing\n" in told


def test_the_line_of_a_handler_is_found_behind_wrappers():
    """It is that of the function that was written."""

    def plain(): ...

    @functools.wraps(plain)
    def wrapped(): ...

    class Callable:
        def __call__(self): ...

        def method(self): ...

        @staticmethod
        def static(): ...

    class Derived(Callable): ...

    here = plain.__code__.co_firstlineno
    found = {line_of(it) for it in (plain, wrapped, functools.partial(functools.partial(plain)))}
    assert {it.line for it in found} == {here}
    of_class = {
        line_of(it).line
        for it in (Callable(), Derived(), Callable().method, vars(Callable)["static"])
    }
    assert of_class == {here + 6, here + 8, here + 10}
    assert line_of(Callable).line == here + 5
    assert line_of(print) is None
    assert line_of(object()) is None
    assert line_of_class(int) is None


def test_the_source_of_a_class_may_be_missing(monkeypatch: pytest.MonkeyPatch):
    """As in a program that has only compiled files."""
    monkeypatch.setattr("inspect.getsourcelines", lambda _: (_ for _ in ()).throw(OSError))
    assert line_of_class(Command) is None


def test_a_path_is_shown_from_the_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path):
    """If it lies below; on another drive of Windows it stays as it is."""
    line = line_of(test_a_key_may_be_a_function)
    monkeypatch.chdir(tmp_path)
    assert str(line) == f"{line.file}:{line.line}"
    monkeypatch.setattr("os.path.relpath", lambda _: (_ for _ in ()).throw(ValueError))
    assert str(line) == f"{line.file}:{line.line}"
