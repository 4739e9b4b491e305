"""`flask events` shows what there is."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from madcrow_events import on_event
from madcrow_events.plugins import Plugin, PluginReport

MakeApp = Callable[..., Flask]


def run(app: Flask, *arguments: str) -> Any:
    return app.test_cli_runner().invoke(args=["events", *arguments])


def bill() -> None: ...


class Mailer:
    def __call__(self) -> None: ...


def test_list_shows_each_event_with_its_context_and_its_handlers(make_app: MakeApp) -> None:
    on_event("order_placed")(bill)
    on_event("order_*")(Mailer())
    listed = run(make_app(), "list")
    assert listed.exit_code == 0
    lines = [line.split() for line in listed.output.splitlines()]
    assert lines[0] == ["EVENT", "CONTEXT", "HANDLER"]
    assert ["order_placed", "-", f"{__name__}.bill"] in lines
    assert ["order_placed", "-", f"{__name__}.Mailer"] in lines
    assert ["flask.message_flashed", "FlashEventContext", "-"] in lines
    login = [line[1:] for line in lines if line[0] == "user_logged_in"]
    ready_made = "madcrow_events.event_handlers.auth_handlers.handle_user_login"
    assert ["LoginEventContext", ready_made] in login


def test_list_takes_a_pattern(make_app: MakeApp) -> None:
    on_event("order_placed")(bill)
    assert run(make_app(), "list", "order_*").output == (
        "EVENT         CONTEXT  HANDLER\n"
        f"order_placed  -        {__name__}.bill\n"
    )  # fmt: skip


@pytest.mark.parametrize("status", ["loaded", "refused", "failed"])
def test_plugins_tells_of_each_plugin_and_fails_if_one_would(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, status: Any
) -> None:
    plugin = Plugin("alerts", "acme_alerts:group", "acme-alerts", "1.2", ())
    reason = "" if status == "loaded" else "it is too old"
    report = PluginReport(plugin, status, reason)
    monkeypatch.setattr("flask_app.events.check_plugins", lambda: [report])
    told = run(make_app(), "plugins")
    assert told.exit_code == (0 if status == "loaded" else 1)
    assert [line.split(maxsplit=3) for line in told.output.splitlines()] == [
        ["PLUGIN", "VERSION", "STATUS", "REASON"],
        [plugin.name, "1.2", status, *filter(None, [reason])],
    ]


def test_plugins_asks_for_those_that_are_installed(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MADCROW_EVENTS_DISABLE_PLUGINS", "1")
    assert run(make_app(), "plugins").output.startswith("PLUGIN")
