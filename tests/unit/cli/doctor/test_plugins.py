"""Plugins that would not load."""

from __future__ import annotations

import pytest

from support.plugins import GOOD

EVENT = "signals.signal('order_placed')\nregister_handler('order_placed', print)\n"
LOADING = EVENT + "def start(names):\n    load_plugins(allow=names)\n"
FAILING = "raise RuntimeError('it needs a database')"


@pytest.mark.parametrize("with_plugins", [False, True])
def test_plugins_that_would_not_load_are_found(examine_app, install, with_plugins):
    """With the reason; those that load are none."""
    install("good", GOOD)
    install("bad", FAILING)
    install("lacking", GOOD, requires="absent-thing")
    examined = examine_app(EVENT if with_plugins else LOADING, with_plugins=with_plugins)
    refused, failed = examined.record["findings"]
    assert (refused["kind"], refused["subject"]) == ("refused_plugin", "lacking:lacking")
    assert "absent-thing" in refused["message"]
    assert (failed["kind"], failed["subject"]) == ("failed_plugin", "bad:bad")
    assert failed["message"].startswith("loading bad:bad 1.2 fails: RuntimeError: it needs a data")
    assert (failed["file"], failed["line"]) == (None, None)
    assert examined.record["plugins"] == 3


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PLUGINS_DENY", "bad"), ("PLUGINS_ALLOW", "good:good"), ("DISABLE_PLUGINS", "1")],
)
def test_plugins_that_are_kept_out_on_purpose_are_no_finding(
    examine_app, install, monkeypatch, variable, value
):
    """Whoever has written the list wants it so."""
    install("good", GOOD)
    install("bad", FAILING)
    monkeypatch.setenv(f"MADCROW_EVENTS_{variable}", value)
    assert examine_app(LOADING).record["findings"] == []


LISTS = {
    "load_plugins(allow=['good'])": True,
    "def start():\n    load_plugins(allow=('good', 'absent'))": True,
    "load_plugins(allow=['good'])\nload_plugins(allow=['bad'])": False,
    "load_plugins(allow=['good'])\nload_plugins(**{})": False,
    "allowed = ['good']\nload_plugins(allow=allowed)": False,
    "def start():\n    load_plugins(allow='good')": False,
}


@pytest.mark.parametrize("source", LISTS)
@pytest.mark.once
def test_the_lists_of_the_application_count(examine_app, install, source):
    """If all of its calls list what they allow; else any plugin may be meant."""
    install("good", GOOD)
    install("bad", FAILING)
    examined = examine_app(EVENT + source)
    assert ("failed_plugin" not in examined.kinds) is LISTS[source]
    assert "unknown_plugin" not in examined.kinds


def test_an_entry_of_a_list_that_means_no_plugin_is_found(examine_app, install, monkeypatch):
    """With what is similar."""
    install("good", GOOD)
    monkeypatch.setenv("MADCROW_EVENTS_PLUGINS_DENY", "goood:goood")
    (found,) = examine_app(LOADING).record["findings"]
    assert found["kind"] == "unknown_plugin"
    assert found["subject"] == "MADCROW_EVENTS_PLUGINS_DENY names goood:goood"
    assert "did you mean good:good?" in found["message"]


def test_plugins_that_the_application_does_not_load_are_left_alone(examine_app, install):
    """They are not even imported: whoever examines an application has not asked for them."""
    install("bad", FAILING)
    record = examine_app(EVENT).record
    assert (record["findings"], record["plugins"]) == ([], 0)
