"""Plugins are found in what is installed, without being imported."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from madcrow_events import SignalRegistry
from madcrow_events.plugins import discover_plugins, load_plugins, unload_plugin
from support.plugins import GOOD, Install


@pytest.mark.guarantee("P1")
def test_among_300_distributions_nothing_is_imported_but_the_plugins(
    install: Install, signals: SignalRegistry, tmp_path: Path
) -> None:
    for number in range(297):
        install(f"other-{number}", "1 / 0")
        (tmp_path / f"other_{number}-1.2.dist-info" / "entry_points.txt").write_text(
            f"[console_scripts]\nother = other_{number}:main\n"
        )
    for number in range(3):
        install(f"ours-{number}", GOOD.replace("good", f"good{number}"))
    before = set(sys.modules)
    reports = load_plugins(signals=signals)
    assert [report.ok for report in reports] == [True] * 3
    assert set(sys.modules) - before == {"ours_0", "ours_1", "ours_2"}


@pytest.mark.guarantee("P2")
@pytest.mark.guarantee("P5")
@pytest.mark.parametrize("spelling", ["mail_alerts", "Mail.Alerts", "mail-ALERTS"])
@pytest.mark.parametrize(
    ("name", "is_called_so"),
    [
        ("acme-x:mail-alerts", True),
        ("Acme.X:mail_alerts", True),
        (" acme_x : Mail--Alerts ", True),
        ("MAIL.alerts", True),
        ("acme-x", True),
        (" ACME_X ", True),
        ("acme-x:", False),
        (":mail-alerts", False),
        ("acme-x:mailalerts", False),
        ("acme", False),
        ("acme-y:mail-alerts", False),
    ],
)
def test_a_plugin_has_three_names(
    install: Install,
    signals: SignalRegistry,
    caplog: pytest.LogCaptureFixture,
    name: str,
    spelling: str,
    is_called_so: bool,
) -> None:
    """Its own, that of its entry point, and that of its distribution; each as PyPI spells it."""
    install("Acme_X", GOOD, entry_point=spelling)
    (report,) = load_plugins(deny=[name], signals=signals)
    assert report.ok != is_called_so
    assert ("no installed plugin has this name" in caplog.text) != is_called_so
    if name == "acme-x:mailalerts":
        assert "the argument deny names acme-x:mailalerts" in caplog.text
        assert f"did you mean acme-x:{spelling}?" in caplog.text
    (report,) = load_plugins(signals=signals)
    assert report.ok
    assert unload_plugin(name, signals=signals) == is_called_so


def test_a_distribution_may_offer_several_plugins(
    install: Install, signals: SignalRegistry, tmp_path: Path
) -> None:
    install("two", GOOD)
    (tmp_path / "other.py").write_text(textwrap.dedent(GOOD).replace("good", "other"))
    (tmp_path / "two-1.2.dist-info" / "entry_points.txt").write_text(
        "[madcrow_events.handlers]\na = two:group [extra]\nc = other:group\n"
    )
    assert [report.plugin.name for report in load_plugins(signals=signals)] == ["two:a", "two:c"]
    assert [report.ok for report in load_plugins(signals=signals)] == [True, True]
    assert load_plugins(deny=["two:a"], signals=signals)[0].status == "refused"
    assert unload_plugin("two", signals=signals)
    assert not signals.subscriptions


def test_a_mistaken_entry_point_hides_no_other_of_its_distribution(
    install: Install, signals: SignalRegistry, tmp_path: Path
) -> None:
    install("ours", GOOD)
    (tmp_path / "ours-1.2.dist-info" / "entry_points.txt").write_text(
        "[console_scripts]\nours = not-a-module\n\n"
        "[madcrow_events.handlers]\n# The second cannot be.\nfirst = ours:group\nsecond = -:-\n"
    )
    reports = {report.name: report.status for report in load_plugins(signals=signals)}
    assert reports == {"ours:first": "loaded", "ours:second": "failed"}


def test_broken_metadata_are_that_distributions_problem(
    install: Install, signals: SignalRegistry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install("good", GOOD)
    for name in ("nameless", "without-metadata", "malformed", "malformed-other", "versionless"):
        install(name, "1 / 0", value="good:group", entry_point=name)
    (tmp_path / "nameless-1.2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\n")
    (tmp_path / "without_metadata-1.2.dist-info" / "METADATA").unlink()
    versionless = "Metadata-Version: 2.1\nName: versionless\n"
    (tmp_path / "versionless-1.2.dist-info" / "METADATA").write_text(versionless)
    for name, group in (("malformed", "madcrow_events.handlers"), ("malformed_other", "scripts")):
        (tmp_path / f"{name}-1.2.dist-info" / "entry_points.txt").write_text(f"[{group}]\nfoo\n")
    good, versionless_too = load_plugins(signals=signals)
    assert good.ok
    assert (versionless_too.plugin.version, versionless_too.status) == ("", "failed")
    left_out = [it.message for it in caplog.records if "cannot be read" in it.message]
    assert len(left_out) == 3
    for part in ("nameless-", "without_metadata-", "malformed-"):
        assert any(part in message for message in left_out)


def test_a_distribution_counts_where_it_comes_first(
    install: Install, signals: SignalRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("good", GOOD)
    newer = tmp_path / "newer" / "good-2.0.dist-info"
    newer.mkdir(parents=True)
    (newer / "METADATA").write_text("Metadata-Version: 2.1\nName: good\nVersion: 2.0\n")
    monkeypatch.syspath_prepend(str(newer.parent))
    assert discover_plugins() == []


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (
            "acme_greter:group",
            "names a module that does not exist: correct it in its pyproject.toml",
        ),
        ("ours.sub:group", "names a module that does not exist"),
        ("ours:grup", "names an object that the module does not have"),
        ("ours:group.name.x", "names an object that the module does not have"),
        ("ours", "is not of the form module:object"),
        ("!!! :::", "names a module that does not exist"),
    ],
)
def test_a_mistaken_entry_point_is_named(
    install: Install, signals: SignalRegistry, target: str, reason: str
) -> None:
    install("ours", GOOD, value=target)
    (report,) = load_plugins(signals=signals)
    assert report.status == "failed"
    assert f"its entry point ours = {target} {reason}" in report.reason


@pytest.mark.parametrize("entry", [b"nowhere", Path("nowhere")])
def test_what_imports_pass_over_on_the_path_hides_no_plugin(
    install: Install, signals: SignalRegistry, monkeypatch: pytest.MonkeyPatch, entry: object
) -> None:
    install("ours", GOOD, requires="pydantic")
    monkeypatch.setattr(sys, "path", [entry, *sys.path])
    (report,) = load_plugins(signals=signals)
    assert report.ok, report
