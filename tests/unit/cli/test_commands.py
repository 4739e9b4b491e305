"""The subcommands: what each shows, and with which status it ends."""

from __future__ import annotations

import io
import sys

import pytest

from madcrow_events import __version__
from madcrow_events.plugins import Plugin, PluginReport, PluginReports
from support.command import SHOP, Command, command

__all__ = ["command"]


def test_show_has_all_of_an_event(command: Command):
    """Its fields, an example as JSON and as code, its old names, and who listens."""
    command.write(shop=SHOP)
    record = command("show", "order_made", "--json", app="shop").record
    assert record["event"]["event"] == "order_placed"
    fields = {it["name"]: it for it in record["fields"]}
    assert list(fields) == [
        *("order_id", "total", "tags"),
        *("timestamp", "request_id", "user_agent", "ip_address"),
    ]
    assert fields["order_id"] == {
        "name": "order_id",
        "type": "int",
        "limits": None,
        "required": True,
        "default": None,
        "description": None,
    }
    assert (fields["total"]["description"], fields["total"]["limits"]) == ("In euros", "> 0")
    assert fields["tags"]["default"] == "[]"
    assert fields["timestamp"]["default"] == "now()"
    assert record["example"] == {"order_id": 1, "total": 1.0}
    assert record["code"] == (
        "from madcrow_events import emit_event\nfrom shop import OrderPlaced\n\n"
        "emit_event(OrderPlaced(order_id=1, total=1.0))"
    )
    assert len(record["handlers"]) == 4
    told = command("show", "order_placed", app="shop").out
    for part in ("formerly", "order_made", "key", "float > 0", "emit_event(", "1. count (shop."):
        assert part in told


def test_show_has_an_event_without_a_model_and_without_handlers(command: Command):
    """There is less to say."""
    command.write(shop=SHOP)
    told = command("show", "stock_low", app="shop").out
    assert 'emit_event("stock_low")' in told
    assert "Nobody listens." in told
    assert "Fields" not in told


def test_explain_says_who_would_be_called(command: Command):
    """With a context, with some of its fields, and without any."""
    command.write(shop=SHOP)
    assert (
        "Without fields, no `when` was asked" in command("explain", "order_placed", app="shop").out
    )
    told = command("explain", "order_placed", "order_id=7", "total=12", app="shop")
    assert told.status == 0
    assert "its `when` says no" in told.out
    some = command("explain", "order_placed", "total=120", "--json", app="shop").record
    assert [it["name"] for it in some["called"]] == ["shop.write_audit"]
    reasons = {it["name"]: it["reason"] for it in some["left_out"]}
    assert reasons["count"] == "context"
    assert some["has_context"]
    assert some["missing"] == ["order_id"]
    told = command("explain", "order_placed", "total=120", app="shop").out
    assert "Required fields are missing, so no context was made: order_id\n" in told
    wrong = command("explain", "order_placed", "total=x", app="shop")
    assert wrong.status == 2
    assert "total: Input should be a valid number" in wrong.err
    loose = command("explain", "stock_low", "left=3", app="shop")
    assert "would call nobody" in loose.out


def test_emit_shows_what_each_handler_returned_or_raised(command: Command):
    """With times; the status is 1 if one has failed."""
    command.write(shop=SHOP)
    arguments = ("emit", "order_placed", "order_id=7", "total=120", "--yes")
    ended = command(*arguments, "--json", app="shop")
    assert ended.status == 1
    record = ended.record
    assert (record["event"], record["ok"]) == ("order_placed", False)
    by_name = {it["name"]: it for it in record["handlers"]}
    assert by_name["count"]["value"] == 8
    assert by_name["shop.send_mail"]["value"] == {"sent": True}
    assert by_name["shop.write_audit"]["value"].startswith("<object object at ")
    failed = by_name["shop.thank_for_big_order"]
    assert failed["status"] == "raised"
    assert failed["raised"]["type"] == "RuntimeError"
    assert failed["raised"]["message"] == "no luck"
    assert failed["raised"]["file"] == str(command.folder / "shop.py")
    assert all(it["milliseconds"] >= 0 for it in record["handlers"])
    told = command(*arguments, app="shop").out
    for part in ("returned 8", 'returned {"sent": true}', "RuntimeError: no luck", "shop.py:"):
        assert part in told
    small = command("emit", "order_placed", "order_id=7", "total=12", "--yes", app="shop")
    assert small.status == 0


def test_emit_shows_a_handler_whose_arguments_cannot_be_made(command: Command):
    """It has failed before it was called."""
    command.write(
        unfit="""
            from madcrow_events import BaseEventContext, madcrow_signals
            class Wide(BaseEventContext):
                size: int
            thing = madcrow_signals.signal("loose_thing")
            @thing.on()
            def take(context: Wide): ...
            @thing.on()
            def fail_without_text(): raise LookupError
        """
    )
    ended = command("emit", "loose_thing", "--yes", app="unfit")
    assert ended.status == 1
    assert "unfit.take" in ended.out
    assert "ContextValidationError: " in ended.out
    assert "LookupError\n" in ended.out


def test_emit_shows_a_handler_that_raises_to_its_emitter_or_exits(command: Command):
    """Neither ends the command."""
    command.write(
        harsh="""
            import sys
            from madcrow_events import madcrow_signals
            raising = madcrow_signals.signal("raising_thing")
            raising.subscribe(lambda: 1 / 0, id="raises", on_error="raise")
            ending = madcrow_signals.signal("ending_thing")
            ending.subscribe(lambda: sys.exit(4), id="exits")
            class Quit(BaseException): ...
            quitting = madcrow_signals.signal("quitting_thing")
            @quitting.on(id="quits")
            def quit(): raise Quit
        """
    )
    errors = (
        ("raising_thing", "ZeroDivisionError"),
        ("ending_thing", "SystemExit"),
        ("quitting_thing", "Quit"),
    )
    for event, error in errors:
        ended = command("emit", event, "--yes", "--json", app="harsh")
        assert ended.status == 1
        (call,) = ended.record["handlers"]
        assert (call["status"], call["raised"]["type"]) == ("raised", error)


def test_emit_does_not_hide_ctrl_c(command: Command):
    """Also where a handler is told of it."""
    command.write(
        stopped="""
            from madcrow_events import madcrow_signals
            @madcrow_signals.signal("stopped_thing").on()
            def stop(): raise KeyboardInterrupt
        """
    )
    assert command("emit", "stopped_thing", "--yes", app="stopped").status == 130


def test_emit_shows_values_that_cannot_be_shown(command: Command):
    """The handlers have run, so nothing of the result may be lost."""
    command.write(
        values="""
            from madcrow_events import madcrow_signals
            thing = madcrow_signals.signal("odd_thing")
            class Odd:
                def __repr__(self): raise LookupError
            nested = []
            for _ in range(985):
                nested = [nested]
            for number, value in enumerate((Odd(), 10**5000, nested, float("nan"), {1, 2})):
                thing.subscribe(lambda value=value: value, id=f"h{number}")
        """
    )
    values = [
        it["value"]
        for it in command("emit", "odd_thing", "--yes", "--json", app="values").record["handlers"]
    ]
    assert values[0] == "Odd without a repr"
    assert values[1] == "int without a repr"
    assert str(values[2])[:4] in ("[[[[", "list")  # newer Pythons write it
    assert values[3:] == ["nan", "{1, 2}"]


def test_emit_finds_a_batch_that_is_called_for_a_later_emission(command: Command):
    """A handler has emitted the same event again."""
    command.write(
        again="""
            from madcrow_events import Batch, emit_event, madcrow_signals
            thing = madcrow_signals.signal("deep_thing")
            @thing.on(background=True, id="again")
            def again(n):
                if n:
                    emit_event("deep_thing", n=n - 1)
            @thing.on(batch=Batch(max_size=50, max_wait=30), id="batch")
            def batch(contexts): return len(contexts)
        """
    )
    for _ in range(5):
        record = command("emit", "deep_thing", "n=1", "--yes", "--json", app="again").record
        assert record["ok"]
        by_name = {it["name"]: it for it in record["handlers"]}
        assert by_name["batch"]["value"] in (1, 2)


def test_emit_says_that_nobody_listens(command: Command):
    """That is no failure."""
    ended = command.write(shop=SHOP)("emit", "stock_low", "left=3", "--yes", app="shop")
    assert (ended.status, ended.out) == (0, "stock_low was emitted, and nobody listens.\n")


def test_emit_leaves_what_ctrl_c_has_cut_off(command: Command, monkeypatch: pytest.MonkeyPatch):
    """The handlers that have not ended are listed as pending."""
    command.write(
        slow="""
            import threading
            from madcrow_events import madcrow_signals
            go_on, begun = threading.Event(), threading.Event()
            thing = madcrow_signals.signal("slow_thing")
            @thing.on(background=True)
            def begin():
                begun.set()
                go_on.wait(30)
            @thing.on(background=True, id="second")
            def wait(): ...
            from madcrow_events import EventDispatcher
            dispatcher = EventDispatcher(max_workers=1)
        """
    )

    def interrupted(_self: object, _timeout: object = None) -> None:
        sys.modules["slow"].begun.wait(30)
        raise KeyboardInterrupt

    monkeypatch.setattr("madcrow_events.EventDispatcher.drain", interrupted)
    ended = command("emit", "slow_thing", "--yes", "--json", app="slow:dispatcher")
    sys.modules["slow"].go_on.set()
    assert ended.status == 1
    assert {it["status"] for it in ended.record["handlers"]} == {"pending"}
    assert [it["name"] for it in ended.record["handlers"]] == ["slow.begin", "second"]
    told = command("emit", "slow_thing", "--yes", app="slow:dispatcher").out
    assert "has not ended" in told


def test_emit_asks_first(command: Command, monkeypatch: pytest.MonkeyPatch):
    """It lists the handlers; without an answer, nothing is emitted."""
    command.write(shop=SHOP)
    arguments = ("emit", "order_paid", "order_id=7")
    refused = command(*arguments, app="shop")
    assert (refused.status, refused.out) == (2, "")
    assert "nobody can be asked here whether to emit: give --yes" in refused.err

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for answer, status in (("n\n", 1), ("y\n", 0)):
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        ended = command(*arguments, app="shop")
        assert ended.status == status
        assert "order_paid would call, in this order:" in ended.err
        assert "Emit it?" in ended.err
        assert ("shop.write_audit" in ended.out) is (status == 0)


def test_an_error_of_the_package_is_a_message(command: Command):
    """As that of a dispatcher that the application has closed."""
    command.write(
        closed="""
            from madcrow_events import EventDispatcher, madcrow_signals
            madcrow_signals.signal("late_thing").subscribe(print, background=True)
            dispatcher = EventDispatcher()
            dispatcher.close()
        """
    )
    ended = command("emit", "late_thing", "--yes", app="closed:dispatcher")
    assert ended.status == 2
    assert ended.err.startswith("madcrow-events: ")
    assert "closed" in ended.err


ALERTS = Plugin("acme-alerts:alerts", "alerts", "acme-alerts", "1.2", "acme_alerts:group")
MAIL = Plugin("acme-mail:mail", "mail", "acme-mail", "2.0", "acme_mail:group")


def test_plugins_are_listed(command: Command, monkeypatch: pytest.MonkeyPatch):
    """None of them is imported."""
    monkeypatch.setattr("madcrow_events.cli._plugins.discover_plugins", lambda: [ALERTS, MAIL])
    found = command("plugins", "--json").record
    assert found[0] == {
        "name": "acme-alerts:alerts",
        "version": "1.2",
        "target": "acme_alerts:group",
    }
    assert "acme-mail:mail      2.0      acme_mail:group" in command("plugins").out
    monkeypatch.setattr("madcrow_events.cli._plugins.discover_plugins", list)
    assert command("plugins") == (0, "No plugin is installed.\n", "")


def test_plugins_are_checked(command: Command, monkeypatch: pytest.MonkeyPatch):
    """The status is 1 if one would not load, or if a list names none."""
    loaded = PluginReport(ALERTS, "loaded", "", 12.34, ("alert_raised",), ("*", "alert_raised"))
    failed = PluginReport(MAIL, "failed", "ImportError: no module")
    cases = (
        (PluginReports([loaded]), 0),
        (PluginReports([loaded, failed]), 1),
        (PluginReports([loaded], ["the argument deny names nobody"]), 1),
        (PluginReports(), 0),
    )
    for reports, status in cases:
        monkeypatch.setattr("madcrow_events.cli._plugins.check_plugins", lambda it=reports: it)
        ended = command("plugins", "check", "--json")
        assert ended.status == status
        assert [it["status"] for it in ended.record["plugins"]] == [it.status for it in reports]
        assert ended.record["warnings"] == [*reports.warnings]
        assert ("deny names nobody" in ended.err) is bool(reports.warnings)
        told = command("plugins", "check").out
        for report in reports:
            assert report.name in told
            assert (report.reason or "events: 1, handlers: 2") in told
        assert ("No plugin is installed." in told) is not bool(reports)


@pytest.mark.parametrize("kind", ["json-schema", "asyncapi"])
def test_schema_writes_the_catalogue(command: Command, kind: str):
    """Of the events that a pattern chooses."""
    command.write(shop=SHOP)
    document = command("schema", "order_*", "--format", kind, app="shop").record
    assert "order_placed" in str(document)
    assert "user_logged_in" not in str(document)
    assert command("schema", "order_*", "--format", kind, "--json", app="shop").record == document
    assert command("schema", "xyzzy", app="shop").status == 2


def test_a_wrong_argument_is_a_usage_error(command: Command):
    """Typer says what is wrong."""
    for arguments in (["nothing"], ["events", "--nothing"], ["show"], ["schema", "--format", "x"]):
        ended = command(*arguments)
        assert ended.status == 2
        assert "Traceback" not in ended.err


def test_doctor_says_what_is_wrong(command: Command, monkeypatch: pytest.MonkeyPatch):
    """The status is 1 if anything is; without an application it has nothing to examine."""
    command.write(shop=SHOP)
    sick = command("doctor", app="shop")
    assert sick.status == 1
    assert "nobody handles stock_low\n  to do: " in sick.out
    monkeypatch.setenv("MADCROW_EVENTS_PLUGINS_DENY", "absent")
    assert "Entries of lists that mean no plugin" in command("doctor", "--plugins", app="shop").out
    monkeypatch.delenv("MADCROW_EVENTS_PLUGINS_DENY")
    assert "shop.py:" in sick.out
    record = command("doctor", "--json", app="shop").record
    assert [it["kind"] for it in record["findings"]] == ["unhandled_event"]
    missing = command("doctor")
    assert missing.status == 2
    assert "name the application to examine" in missing.err


def test_doctor_counts_what_it_has_examined(command: Command, monkeypatch: pytest.MonkeyPatch):
    """Plugins, too, if there are any."""
    examination = {"events": 1, "handlers": 2, "plugins": 3, "perhaps_handled": [], "findings": []}
    monkeypatch.setattr("madcrow_events.cli._doctor.examine", lambda *_, **__: examination)
    told = command("doctor", "--app", "shop").out
    assert told == "1 event, 2 handlers, 3 plugins: nothing wrong\n"


def test_doctor_says_that_nothing_is_wrong(command: Command):
    """What only an observer follows may be meant so."""
    command.write(
        well="""
            from madcrow_events import get_event_dispatcher, madcrow_signals, on_event
            madcrow_signals.signal("heard_thing")
            on_event("heard_thing")(print)
            madcrow_signals.signal("followed_thing")
            class Observer:
                def emission(self, emission): ...
                def handling(self, emission, handler): ...
            get_event_dispatcher().add_observer(Observer())
        """
    )
    healthy = command("doctor", app="well")
    assert healthy.status == 0
    assert healthy.out.endswith("2 events, 1 handler: nothing wrong\n")
    assert "or by code that has not run yet: followed_thing" in healthy.out


def test_the_version_is_written(command: Command):
    """It is that of the package."""
    assert command("--version") == (0, f"madcrow-events {__version__}\n", "")


def test_a_text_of_the_application_cannot_move_the_cursor(command: Command):
    """It is shown in one line."""
    command.write(
        wild="""
            from madcrow_events import madcrow_signals
            doc = "Two\\nlines and \\x1b[31mred."
            madcrow_signals.signal("wild_thing", doc).subscribe(lambda: "a\\nb\\x1b[31m")
        """
    )
    told = [command(*it, app="wild").out for it in (("events",), ("show", "wild_thing"))]
    assert all("Two lines and \\x1b[31mred." in it for it in told)
    assert "returned a\\nb\\x1b[31m\n" in command("emit", "wild_thing", "--yes", app="wild").out


def test_help_is_written(command: Command):
    """Each subcommand has an example; without a subcommand, all are listed."""
    for name in ("events", "handlers", "show", "explain", "schema", "emit", "doctor"):
        ended = command(name, "--help")
        assert ended.status == 0
        assert f"Example: madcrow-events {name}" in " ".join(ended.out.split())
        assert name in command("-h").out


def test_ctrl_c_ends_the_command(command: Command, monkeypatch: pytest.MonkeyPatch):
    """With the status of shells, and without a traceback."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("madcrow_events.cli._plugins.discover_plugins", interrupted)
    ended = command("plugins")
    assert ended.status == 130
    assert "Traceback" not in ended.err
