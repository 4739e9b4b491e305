"""Which plugins the application allows, and what is worth a warning."""

from __future__ import annotations

import sys

import pytest

from madcrow_events import SignalRegistry
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.plugins import check_plugins, load_plugins, unload_plugin
from support.plugins import GOOD, Install


@pytest.mark.guarantee("P2")
@pytest.mark.parametrize("off", ["", "0", "1"])
@pytest.mark.parametrize("deny", [None, "good", "acme:good", "other"])
@pytest.mark.parametrize("allow", [None, "Acme:good", "other", "other,good"])
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_the_switch_wins_over_deny_and_deny_over_allow(
    install: Install,
    signals: SignalRegistry,
    monkeypatch: pytest.MonkeyPatch,
    off: str,
    deny: str | None,
    allow: str | None,
    by: str,
) -> None:
    install("acme", GOOD, entry_point="good")
    monkeypatch.setenv("MADCROW_EVENTS_DISABLE_PLUGINS", off)
    lists = {}
    for name, value in (("allow", allow), ("deny", deny)):
        if value is not None and by == "argument":
            lists[name] = value.split(",")
        elif value is not None:
            monkeypatch.setenv(f"MADCROW_EVENTS_PLUGINS_{name.upper()}", value)
    (report,) = load_plugins(signals=signals, **lists)
    wanted = off != "1" and deny in (None, "other") and allow != "other"
    assert report.ok == wanted
    assert ("acme" in sys.modules) == wanted
    if not wanted:
        assert report.status == "refused"
        expected = "the deny list" if deny in ("good", "acme:good") else "the allow list"
        assert ("switched off" if off == "1" else expected) in report.reason


@pytest.mark.guarantee("P2")
def test_a_list_names_plugins(install: Install, signals: SignalRegistry) -> None:
    with pytest.raises(InvalidOptionError, match=r"write allow=\['acme-alerts:"):
        load_plugins(allow="good", signals=signals)
    with pytest.raises(InvalidOptionError, match="deny is a list of names"):
        load_plugins(deny=5, signals=signals)  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match=r"name is that of a plugin.*not int"):
        unload_plugin(5, signals=signals)  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="timeout must be"):
        unload_plugin("good", timeout=-1, signals=signals)
    with pytest.raises(InvalidOptionError, match=r"deny names plugins.*not int"):
        load_plugins(deny=[1], signals=signals)  # type: ignore[list-item]
    with pytest.raises(InvalidOptionError, match="timeout must be"):
        check_plugins(timeout=0)


def test_what_the_application_wants_so_is_no_warning(
    install: Install, signals: SignalRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    install("good", GOOD)
    install("other", GOOD)
    caplog.set_level("INFO")
    load_plugins(allow=["good"], signals=signals)
    load_plugins(allow=["good"], signals=signals)
    assert [record.levelname for record in caplog.records] == ["INFO"] * 3
    assert "loaded in" not in caplog.records[2].message
