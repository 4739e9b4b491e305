"""Which plugins the application allows, and what is worth a warning."""

from __future__ import annotations

import logging
import sys
from functools import partial
from pathlib import Path

import pytest

from madcrow_events import SignalRegistry
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.plugins import check_plugins, load_plugins, unload_plugin
from support.plugins import GOOD, Install


@pytest.mark.guarantee("P2")
@pytest.mark.parametrize("off", ["0", "1"])
@pytest.mark.parametrize("deny", [None, "good", "acme:good", "other"])
@pytest.mark.parametrize("allow", [None, "Acme:good", "other", "other,acme"])
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
def test_a_switch_that_is_empty_switches_nothing_off(
    install: Install, signals: SignalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("acme", GOOD)
    monkeypatch.setenv("MADCROW_EVENTS_DISABLE_PLUGINS", "")
    (report,) = load_plugins(signals=signals)
    assert report.ok


@pytest.mark.guarantee("P2")
def test_a_list_names_plugins(install: Install, signals: SignalRegistry) -> None:
    with pytest.raises(InvalidOptionError, match=r"write allow=\['good'\]"):
        load_plugins(allow="good", signals=signals)
    with pytest.raises(InvalidOptionError, match="deny is a list of names"):
        load_plugins(deny=5, signals=signals)  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match=r"name must name a plugin.*not int"):
        unload_plugin(5, signals=signals)  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="timeout must be"):
        unload_plugin("good", timeout=-1, signals=signals)
    with pytest.raises(InvalidOptionError, match=r"deny names plugins.*not int"):
        load_plugins(deny=[1], signals=signals)  # type: ignore[list-item]
    with pytest.raises(InvalidOptionError, match="timeout must be"):
        check_plugins(timeout=0)
    for act in (load_plugins, partial(unload_plugin, "good")):
        with pytest.raises(InvalidOptionError, match="signals must be a SignalRegistry"):
            act(signals=None)  # type: ignore[arg-type]


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


@pytest.mark.guarantee("P5")
@pytest.mark.parametrize(
    ("distribution", "entry_point"),
    [
        ("evil", "acme-alerts:alerts"),
        ("evil", "acme-alerts"),
        ("evil", "Acme_Alerts"),
        ("evil", "alerts"),
        ("evil", "acme-alerts : alerts"),
        ("evil", "acme-alerts\u00a0"),
        ("acme-alerts:alerts", "x"),
        ("acme-alerts\u00a0", "alerts"),
        ("acme-\u0430lerts", "alerts"),
        ("a\u0441me-alerts", "alerts"),
        ("acme\u2010alerts", "alerts"),
    ],
)
@pytest.mark.parametrize("allowed", ["acme-alerts", "acme-alerts:alerts"])
def test_no_other_distributions_plugin_passes_an_allow_list(
    install: Install, signals: SignalRegistry, distribution: str, entry_point: str, allowed: str
) -> None:
    """However it is named; not even where the one that is meant is not installed."""
    install(distribution, "raise SystemExit", entry_point=entry_point)
    (evil,) = load_plugins(allow=[allowed], signals=signals)
    assert evil.status == "refused", evil
    install("Acme.Alerts", "", entry_point="alerts", value="good:group")
    install("good", GOOD, entry_point="good")
    reports = load_plugins(allow=[allowed], signals=signals)
    assert {report.name for report in reports if report.ok} == {"acme-alerts:alerts"}
    assert unload_plugin("acme-alerts:alerts", signals=signals)
    assert not signals.subscriptions


@pytest.mark.guarantee("P5")
@pytest.mark.parametrize(
    ("distribution", "entry_point", "shown"),
    [
        ("evil", "acme:alerts", "'evil:acme:alerts'"),
        ("evil", "acme alerts", "'evil:acme alerts'"),
        ("evil", "\u0430lerts", r"'evil:\u0430lerts'"),
        ("\u212aeeper", "alerts", r"'\u212aeeper:alerts'"),  # lower() makes the letter k of it
    ],
)
def test_a_name_that_could_be_taken_for_another_one_is_refused(
    install: Install, signals: SignalRegistry, distribution: str, entry_point: str, shown: str
) -> None:
    """With what to do; it is no rival of a plugin that it looks like."""
    install("keeper", GOOD, entry_point="alerts")
    install(distribution, "raise SystemExit", entry_point=entry_point)
    reports = {report.name: report for report in load_plugins(signals=signals)}
    assert reports.pop("keeper:alerts").ok
    (refused,) = reports.values()
    assert refused.status == "refused"
    assert refused.reason.startswith(
        f"{shown} is not a valid plugin name: name the distribution and"
    )


@pytest.mark.guarantee("P5")
def test_an_allow_list_names_an_entry_point_with_its_distribution(
    install: Install, signals: SignalRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """The entry to write is told; but not where another distribution of that name is meant."""
    install("acme-mail", GOOD, entry_point="alerts")
    reports = load_plugins(allow=["Alerts"], signals=signals)
    assert reports[0].reason == (
        "it is not on the allow list, the argument allow, by its full name: "
        "write 'acme-mail:alerts'"
    )
    (warning,) = reports.warnings
    assert warning == (
        "the argument allow names Alerts, an entry point without its distribution: "
        "write 'acme-mail:alerts'"
    )
    assert warning in caplog.text
    install("alerts", GOOD, entry_point="other")
    reports = load_plugins(allow=["Alerts"], signals=signals)
    assert [report.ok for report in reports] == [False, True]
    assert reports[0].reason == "it is not on the allow list, the argument allow"
    assert reports.warnings == ()


@pytest.mark.guarantee("P5")
def test_each_load_warns_of_a_denied_name_that_nothing_installed_has(
    install: Install,
    signals: SignalRegistry,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A switch may be set before the plugin comes; then it holds."""
    monkeypatch.setenv("MADCROW_EVENTS_PLUGINS_DENY", "acme.alerts")
    warning = "MADCROW_EVENTS_PLUGINS_DENY names acme.alerts, and no installed plugin has this name"
    for load in (lambda: load_plugins(signals=signals), check_plugins):
        for _ in range(2):
            caplog.clear()
            assert load() == []
            assert load().warnings == (warning,)
            assert [it.message for it in caplog.records if it.levelno == logging.WARNING] == (
                [warning] * 2
            )
    install("acme-alerts", GOOD)
    reports = load_plugins(signals=signals)
    assert (reports[0].status, reports.warnings) == ("refused", ())


@pytest.mark.guarantee("P5")
def test_one_distribution_must_not_offer_one_name_twice(
    install: Install, signals: SignalRegistry
) -> None:
    """No list can tell them apart."""
    install("one", GOOD, entry_point="alerts = one:group\nAlerts")
    for report in load_plugins(signals=signals):
        assert report.reason.endswith(
            "the same name: give them different names, and install one again"
        )


@pytest.mark.guarantee("P2")
@pytest.mark.guarantee("P5")
@pytest.mark.parametrize("theirs", ["twin-handlers", "Twin_Handlers"])
def test_of_two_plugins_with_one_name_none_is_loaded_unless_the_lists_leave_one(
    install: Install, signals: SignalRegistry, tmp_path: Path, theirs: str
) -> None:
    install("one", GOOD, entry_point="twin-handlers")
    install("two", GOOD, entry_point=theirs)
    for deny in ([], ["other"]):
        reports = load_plugins(deny=deny, signals=signals)
        assert [report.status for report in reports] == ["refused", "refused"]
        assert (
            f"one:twin-handlers and two:{theirs} offer the same name: allow one of them, as in "
            "allow=['one:twin-handlers'], or uninstall"
        ) in reports[1].reason
    assert not sys.modules.keys() & {"one", "two"}
    for lists in ({"allow": ["one"]}, {"deny": ["two:twin_handlers"]}):
        one, two = load_plugins(signals=signals, **lists)
        assert (one.ok, two.status) == (True, "refused")
    one, two = load_plugins(allow=["two"], signals=signals)
    assert (
        "one:twin-handlers offers the same name, and is loaded: unload_plugin('one:twin-handlers')"
    ) in two.reason
    assert unload_plugin("one:twin-handlers", signals=signals)
    one, two = load_plugins(allow=["two"], signals=signals)
    assert two.ok
    assert unload_plugin("twin.handlers", signals=signals)
