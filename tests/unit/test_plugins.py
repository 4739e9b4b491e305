"""Plugins are found, checked, loaded and unloaded; see tests/packaging for built distributions."""

import builtins
import gc
import importlib
import json
import re
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from madcrow_events import (
    EventDispatcher,
    HandlerGroup,
    SignalRegistry,
    get_event_dispatcher,
    madcrow_signals,
)
from madcrow_events.emissions._outcomes import NO_RESULT
from madcrow_events.exceptions import InvalidOptionError, PluginError
from madcrow_events.plugins import check_plugins, discover_plugins, load_plugins, unload_plugin
from madcrow_events.plugins._checking import check_here
from madcrow_events.plugins._fitness import _declared_api_version

Install = Callable[..., None]

GOOD = """
    from madcrow_events import HandlerGroup

    group = HandlerGroup("good")
    group.signal("good.happened")
    seen = []


    @group.on("good.happened")
    def note(**context):
        seen.append(context)
"""


HALF = """
    from madcrow_events import *

    group = HandlerGroup("half")
    group.signal("half.a")


    @group.on("half.a")
    def a(): pass


    @group.on("no_such_event")
    def b(): pass
"""

CLASHING = """
    from madcrow_events import *

    group = HandlerGroup("clash")
    group.signal("taken", context=LoginEventContext)
"""


LINGERS = "threading.Thread(target=threading.Event().wait, args=(60,)).start()"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    monkeypatch.syspath_prepend(str(tmp_path))
    for variable in ("DISABLE_PLUGINS", "PLUGINS_DENY", "PLUGINS_ALLOW"):
        monkeypatch.delenv(f"MADCROW_EVENTS_{variable}", raising=False)
    before = set(sys.modules)

    def install(
        name: str, source: str, *, entry_point: str = "", value: str = "", requires: str = ""
    ) -> None:
        module = name.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        folder = tmp_path / f"{module}-1.2.dist-info"
        folder.mkdir()
        needs = "".join(f"Requires-Dist: {it}\n" for it in requires.splitlines())
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n{needs}"
        )
        (folder / "entry_points.txt").write_text(
            f"[madcrow_events.handlers]\n{entry_point or module} = {value or f'{module}:group'}\n"
        )

    yield install
    for module in set(sys.modules) - before:
        del sys.modules[module]


@pytest.mark.guarantee("P1")
def test_a_plugin_is_discovered_loaded_and_unloaded(
    install: Install, signals: SignalRegistry
) -> None:
    install("Acme_Good", GOOD, entry_point="good", value="Acme_Good:group")
    (plugin,) = discover_plugins()
    assert (plugin.name, plugin.version) == ("acme-good:good", "1.2")
    assert plugin.distribution == "acme-good"
    assert "Acme_Good" not in sys.modules
    (report,) = load_plugins(signals=signals)
    assert report.ok, report
    assert (report.name, report.distribution, report.version) == plugin[:1] + plugin[2:4]
    assert (report.signals, report.handlers) == (("good.happened",), ("good.happened",))
    assert load_plugins(signals=signals) == [report]
    assert unload_plugin("acme-good:good", signals=signals)
    assert not signals.subscriptions
    assert "good.happened" not in signals
    assert not unload_plugin("good", signals=signals)
    assert load_plugins(signals=signals)[0].ok


@pytest.mark.guarantee("P3")
@pytest.mark.parametrize(
    ("source", "requires", "status", "reason"),
    [
        ("import nothing_of_this_name", "", "failed", "No module named 'nothing_of_this_name'"),
        ("def", "", "failed", "SyntaxError"),
        ("other = 1", "", "failed", "names an object that the module has not"),
        ("group = 1", "", "failed", "= bad:group names int, not a HandlerGroup"),
        ("raise SystemExit(3)", "", "failed", "SystemExit: 3"),
        ("from madcrow_events import HandlerGroup\ngroup = HandlerGroup('new', api_version=2)",
         "", "refused", "asks for api_version 2"),
        ("from madcrow_events import HandlerGroup\ngroup = [HandlerGroup('new', api_version=2)]",
         "", "failed", "asks for api_version 2"),
        (GOOD, "absent-thing>=3\nx; extra == 'x'", "refused", "install 'absent-thing>=3'"),
        (HALF, "", "failed", "UnknownEventError"),
        (CLASHING, "", "failed", "SignalConflictError"),
    ],
)  # fmt: skip
def test_a_broken_plugin_is_named_and_the_others_load(
    install: Install, signals: SignalRegistry, source: str, requires: str, status: str, reason: str
) -> None:
    install("good", GOOD)
    install("bad", source, requires=requires)
    signals.signal("taken")
    bad, good = load_plugins(signals=signals)
    assert good.ok, good
    assert bad.status == status
    assert reason in bad.reason
    assert ("bad" in sys.modules) <= (status == "failed")
    assert set(signals) == {"taken", "good.happened"}
    assert len(signals.subscriptions) == 1


@pytest.mark.soak
@pytest.mark.guarantee("F4")
@pytest.mark.parametrize("kind", ["plain", "async", "pattern", "background", "batch"])
def test_unloading_while_eight_threads_emit_ends_every_call(
    install: Install, signals: SignalRegistry, kind: str, scale: float
) -> None:
    options = {"background": ", background=True", "batch": ", batch=Batch(3, 0.001)"}.get(kind, "")
    event = "busy.*" if kind == "pattern" else "busy.happened"
    parameters = "batch" if kind == "batch" else "**context"
    install(
        "busy",
        f"""
    import time
    from madcrow_events import Batch, HandlerGroup

    group = HandlerGroup("busy")
    starts = []


    @group.on("{event}"{options})
    {"async " * (kind == "async")}def note({parameters}):
        starts.append(time.monotonic())
    """,
    )
    signals.signal("busy.happened")
    over = threading.Event()
    errors = []

    def emit() -> None:
        while not over.is_set():
            emission = dispatcher.emit("busy.happened", number=1)
            if not emission.ok:
                errors.append(emission.failures)

    with EventDispatcher(signals) as dispatcher:
        for _ in range(int(10 * scale)):
            assert load_plugins(signals=signals)[0].ok
            starts = sys.modules["busy"].starts
            threads = [threading.Thread(target=emit) for _ in range(8)]
            for thread in threads:
                thread.start()
            while len(starts) < 20:
                time.sleep(0.001)
            assert unload_plugin("busy", signals=signals)
            unloaded = len(starts)
            time.sleep(0.02)
            over.set()
            for thread in threads:
                thread.join()
            over.clear()
            assert dispatcher.drain(10)
            assert len(starts) == unloaded
            assert not signals.subscriptions
            starts.clear()
    assert errors == []


@pytest.mark.guarantee("P3")
def test_checking_names_even_a_plugin_that_hangs(install: Install) -> None:
    install("good", GOOD)
    install("hangs", "import time\nprint('busy', flush=True)\ntime.sleep(60)")
    install("vanishes", "import os\nos._exit(7)")
    install("exits", "raise SystemExit")
    install("fails", "1 / 0")
    install("lingers", f"import threading\n{textwrap.dedent(GOOD)}\n{LINGERS}")
    install("lacks", "1 / 0", requires="absent-thing")
    # The one that hangs is given up soon; the others may take as long as a busy machine needs.
    found = check_plugins(deny=["hangs"], timeout=60)
    reports = {report.plugin.distribution: report for report in found}
    found = check_plugins(allow=["hangs"], timeout=1)
    reports |= {it.plugin.distribution: it for it in found if it.plugin.distribution == "hangs"}
    assert {name: report.status for name, report in reports.items()} == {
        "exits": "failed",
        "fails": "failed",
        "good": "loaded",
        "hangs": "failed",
        "lacks": "refused",
        "lingers": "loaded",
        "vanishes": "failed",
    }
    assert "was not loaded within 1 s: it may hang" in reports["hangs"].reason
    assert "its process ended with status 7" in reports["vanishes"].reason
    assert reports["exits"].reason.startswith("SystemExit (")
    assert reports["fails"].reason.startswith("ZeroDivisionError")
    assert reports["good"].handlers == ("good.happened",)
    assert not reports.keys() & set(sys.modules)
    assert not madcrow_signals.subscriptions


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


@pytest.mark.guarantee("P3")
def test_loading_and_unloading_100_times_leaves_nothing_behind(
    install: Install, signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    install(
        "ours",
        """
    from madcrow_events import HandlerGroup, madcrow_signals

    group = HandlerGroup("ours")
    group.signal("ours.happened")


    @group.on("ours.happened")
    @group.on("ours.*", priority=1)
    @group.on("ours.happened", sender="me")
    def note(**context):
        pass


    @group.on("ours.happened")
    async def wait(**context):
        pass
    """,
    )
    signals.subscribe("*", lambda **context: None)
    declared = signals.signal("mine")
    sizes = []
    for time_around in range(100):
        (report,) = load_plugins(signals=signals)
        assert report.ok
        assert report.signals == ("ours.happened",)
        assert dispatcher.emit("ours.happened", sender="me").ok
        assert dispatcher.drain(5)
        assert unload_plugin("ours", signals=signals)
        assert set(signals) == {"mine"}
        assert len(signals.subscriptions) == 2  # the pattern, and its part
        assert len(declared.subscriptions) == 1
        if time_around in (19, 99):
            gc.collect()
            sizes.append(len(gc.get_objects()))
    assert sizes[1] - sizes[0] < 50


def test_a_signal_that_a_plugin_holds_works_after_it_was_loaded_again(
    install: Install, signals: SignalRegistry
) -> None:
    install(
        "ours",
        """
    from madcrow_events import BaseEventContext, HandlerGroup, get_event_dispatcher, madcrow_signals


    class Paid(BaseEventContext):
        amount: int


    paid = madcrow_signals.signal("ours.paid", context=Paid)
    group = HandlerGroup("ours")
    seen = []


    @group.on(paid)
    def note(context: Paid):
        seen.append(context.amount)


    def pay(amount):
        get_event_dispatcher().emit_typed(paid, Paid(amount=amount))
    """,
    )
    for amount in range(3):
        assert load_plugins()[0].signals == ("ours.paid",)
        sys.modules["ours"].pay(amount)
        assert unload_plugin("ours")
        assert "ours.paid" not in madcrow_signals
        sys.modules["ours"].pay(99)
    assert sys.modules["ours"].seen == [0, 1, 2]


def test_an_event_stays_while_the_application_listens_to_it(
    install: Install, signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    install("ours", GOOD)
    assert load_plugins(signals=signals)[0].ok
    with signals.subscribe("good.happened", lambda: "mine"):
        assert unload_plugin("ours", signals=signals)
        assert [it.value for it in dispatcher.emit("good.happened").results] == ["mine"]


def test_a_handler_that_a_module_subscribes_by_itself_is_refused(install: Install) -> None:
    install(
        "ours",
        """
    from madcrow_events import HandlerGroup, LoginEventContext, madcrow_signals, on_event

    group = HandlerGroup("ours")


    class Own(LoginEventContext):
        pass


    madcrow_signals.signal("ours.happened", context=Own)


    @group.on("user_logged_in")
    @on_event("user_logged_out")
    def note(**context):
        pass
    """,
    )
    (report,) = load_plugins()
    assert report.status == "failed"
    assert "ours.note is subscribed to user_logged_out outside of" in report.reason
    assert not madcrow_signals.subscriptions
    assert "ours.happened" not in madcrow_signals


def test_what_the_applications_own_modules_subscribe_is_not_the_plugins(
    install: Install, tmp_path: Path
) -> None:
    """A plugin may be a part of the application, whose other modules it imports."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "orders.py").write_text(
        "from madcrow_events import on_event\non_event('user_logged_in')(lambda: None)"
    )
    (tmp_path / "shop" / "plugin.py").write_text(f"import shop.orders\n{textwrap.dedent(GOOD)}")
    install("the-shop", "", value="shop.plugin:group")
    importlib.import_module("shop")
    (report,) = load_plugins()
    assert report.ok, report
    assert len(madcrow_signals.subscriptions) == 2
    assert unload_plugin("the-shop:the_shop")
    assert len(madcrow_signals.subscriptions) == 1


def test_a_group_that_registers_itself_can_be_unloaded(
    install: Install, dispatcher: EventDispatcher
) -> None:
    install("ours", f"{textwrap.dedent(GOOD)}\ngroup.register()")
    assert load_plugins()[0].ok
    (subscription,) = madcrow_signals.subscriptions
    assert unload_plugin("ours")
    assert subscription._shape.invoke(None, None) is NO_RESULT


@pytest.mark.guarantee("P3")
def test_an_interrupt_goes_through_and_leaves_nothing(
    install: Install, signals: SignalRegistry
) -> None:
    install("ours", f"{textwrap.dedent(GOOD)}\nraise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_plugins(signals=signals)
    assert not signals
    assert not signals._plugins


def test_a_plugin_is_loaded_once_however_many_ask(
    install: Install, signals: SignalRegistry
) -> None:
    """By itself, and by other threads."""
    install(
        "ours",
        f"""
    import builtins, time
    from madcrow_events.plugins import load_plugins

    (inner,) = load_plugins(signals=builtins.signals_of_the_test)
    end = time.monotonic() + 20
    while len(builtins.reports_of_the_test) < 3 and time.monotonic() < end:
        time.sleep(0.001)
    {GOOD}
    """,
    )
    reports = []
    builtins.signals_of_the_test = signals  # type: ignore[attr-defined]
    builtins.reports_of_the_test = reports  # type: ignore[attr-defined]
    threads = [
        threading.Thread(target=lambda: reports.extend(load_plugins(signals=signals)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    del builtins.signals_of_the_test  # type: ignore[attr-defined]
    del builtins.reports_of_the_test  # type: ignore[attr-defined]
    assert sys.modules["ours"].inner.status == "refused"
    assert sorted(report.status for report in reports) == ["loaded", *["refused"] * 3]
    assert "it is being loaded or unloaded already" in min(reports, key=lambda it: it.ok).reason
    assert len(signals.subscriptions) == 1
    assert unload_plugin("ours", signals=signals)
    assert not signals.subscriptions


def test_loading_does_not_mind_what_is_loaded_meanwhile(signals: SignalRegistry) -> None:
    """As another thread may do, here at the worst moment."""

    class Loaded:
        @property
        def report(self) -> None:
            signals._plugins.setdefault("another", self)

    signals._plugins["one"] = Loaded()
    assert load_plugins(signals=signals) == []
    assert signals._plugins.keys() == {"one", "another"}


def test_a_plugin_that_takes_long_is_named_in_a_warning(
    install: Install, signals: SignalRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    install("ours", f"import time\ntime.sleep(0.51)\n{textwrap.dedent(GOOD)}")
    install("quick", GOOD.replace("good", "quick"))
    slow, _ = load_plugins(signals=signals)
    assert slow.milliseconds > 500
    (warning,) = [it.message for it in caplog.records if it.levelname == "WARNING"]
    assert re.match(r"plugin ours:ours took \d+\.\d s to load", warning)


def test_a_report_tells_itself_in_one_line(install: Install, signals: SignalRegistry) -> None:
    install("ours", GOOD)
    install("theirs", "raise ValueError('two\\nlines')")
    install("third", "raise ValueError")
    loaded, failed, silent = load_plugins(signals=signals)
    assert str(loaded) == (
        f"ours:ours 1.2: loaded in {loaded.milliseconds:.1f} ms, signals: 1, handlers: 1"
    )
    assert str(failed).startswith(r"theirs:theirs 1.2: failed: ValueError: two\nlines (")
    assert str(failed).endswith("theirs.py, line 1)")
    assert str(silent).startswith("third:third 1.2: failed: ValueError (")
    assert isinstance(failed.exception, ValueError)


def test_an_isolated_block_forgets_what_was_loaded_in_it(
    install: Install, signals: SignalRegistry
) -> None:
    install("ours", GOOD)
    with signals.isolated():
        assert load_plugins(signals=signals)[0].ok
    assert not unload_plugin("ours", signals=signals)
    assert load_plugins(signals=signals)[0].ok
    with signals.isolated(empty=True):
        assert not unload_plugin("ours", signals=signals)
    assert not unload_plugin("another:ours", signals=signals)
    assert unload_plugin("ours:ours", signals=signals)


@pytest.mark.guarantee("F4")
def test_unloading_tells_of_a_call_that_does_not_end(
    install: Install,
    signals: SignalRegistry,
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
) -> None:
    install(
        "ours",
        """
    import threading
    from madcrow_events import HandlerGroup

    group = HandlerGroup("ours")
    group.signal("ours.happened")
    inside, over = threading.Event(), threading.Event()


    @group.on("ours.happened", background=True)
    def wait():
        inside.set()
        over.wait(10)
    """,
    )
    assert load_plugins(signals=signals)[0].ok
    dispatcher.emit("ours.happened")
    module = sys.modules["ours"]
    module.inside.wait(5)
    assert unload_plugin("ours", timeout=0.01, signals=signals)
    assert "plugin ours:ours: 1 calls of its handlers did not end within 0.01 s" in caplog.text
    module.over.set()
    assert dispatcher.drain(5)


@pytest.mark.parametrize(
    ("source", "version"),
    [
        ("group = HandlerGroup('it', api_version=7)", 7),
        ("group: HandlerGroup = HandlerGroup('it', api_version=7)", 7),
        ("group: HandlerGroup", 1),
        ("group = HandlerGroup('it')", 1),
        ("group = HandlerGroup('it', api_version=VERSION)", 1),
        ("other = HandlerGroup('it', api_version=7)", 1),
        ("import os\ngroup = make()", 1),
        ("not Python", 1),
    ],
)
def test_the_version_that_a_plugin_asks_for_is_read_from_its_source(
    install: Install, tmp_path: Path, source: str, version: int
) -> None:
    """Nothing is imported for it, not even the package that the module is in."""
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "outer" / "__init__.py").write_text("1 / 0")
    (tmp_path / "outer" / "inner" / "__init__.py").write_text("1 / 0")
    (tmp_path / "outer" / "inner" / "plugin.py").write_text(source)
    install("ours", "", value="outer.inner.plugin:group")
    (plugin,) = discover_plugins()
    assert _declared_api_version(plugin) == version
    assert "outer" not in sys.modules


@pytest.mark.parametrize(
    "target", ["nowhere:group", "nowhere.at.all:group", "json.no.such:group", "sys:group"]
)
def test_a_target_without_source_is_left_to_the_import(install: Install, target: str) -> None:
    install("ours", "", value=target)
    (plugin,) = discover_plugins()
    assert _declared_api_version(plugin) == 1


def test_a_group_asks_for_a_version_that_there_is() -> None:
    assert HandlerGroup("it", api_version=1).api_version == 1
    with pytest.raises(PluginError, match=r"it asks for api_version 2.*upgrade") as caught:
        HandlerGroup("it", api_version=2)
    assert caught.value.plugin == "it"
    for version in (0, True, "1", 1.0):
        with pytest.raises(InvalidOptionError, match="positive int"):
            HandlerGroup("it", api_version=version)  # type: ignore[arg-type]


def test_what_the_process_of_a_check_does(install: Install, tmp_path: Path) -> None:
    install("ours", GOOD)
    check_here("ours:ours", str(tmp_path / "answer"))
    status, reason, _, events, handlers = json.loads((tmp_path / "answer").read_text())
    assert (status, reason, events, handlers) == (
        "loaded",
        "",
        ["good.happened"],
        ["good.happened"],
    )


@pytest.mark.guarantee("P2")
@pytest.mark.parametrize(
    ("name", "is_called_so"),
    [
        ("acme-x:alerts", True),
        ("Acme.X:alerts", True),
        (" acme_x : alerts ", True),
        ("alerts", True),
        ("acme-x", True),
        ("ACME_X", True),
        ("acme-x:", False),
        ("acme-x:Alerts", False),
        ("acme", False),
        ("acme-y:alerts", False),
    ],
)
def test_a_plugin_has_three_names(
    install: Install,
    signals: SignalRegistry,
    caplog: pytest.LogCaptureFixture,
    name: str,
    is_called_so: bool,
) -> None:
    """Its own, that of its entry point, and that of its distribution."""
    install("acme-x", GOOD, entry_point="alerts")
    (report,) = load_plugins(deny=[name], signals=signals)
    assert report.ok != is_called_so
    assert ("no installed plugin is called so" in caplog.text) != is_called_so
    if name == "acme-x:Alerts":
        assert "the argument deny names acme-x:Alerts" in caplog.text
        assert "did you mean acme-x:alerts?" in caplog.text
    (report,) = load_plugins(signals=signals)
    assert report.ok
    assert unload_plugin(name, signals=signals) == is_called_so


def test_a_distribution_may_offer_several_plugins_and_strange_names(
    install: Install, signals: SignalRegistry, tmp_path: Path
) -> None:
    install("two", GOOD)
    (tmp_path / "other.py").write_text(textwrap.dedent(GOOD).replace("good", "other"))
    (tmp_path / "two-1.2.dist-info" / "entry_points.txt").write_text(
        "[madcrow_events.handlers]\na:b = two:group [extra]\nc = other:group\n"
    )
    assert [report.plugin.name for report in load_plugins(signals=signals)] == ["two:a:b", "two:c"]
    assert [report.ok for report in load_plugins(signals=signals)] == [True, True]
    assert load_plugins(deny=["two:a:b"], signals=signals)[0].status == "refused"
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
        ("acme_greter:group", "names a module that there is not: correct it in its pyproject.toml"),
        ("ours.sub:group", "names a module that there is not"),
        ("ours:grup", "names an object that the module has not"),
        ("ours:group.name.x", "names an object that the module has not"),
        ("ours", "is not of the form module:object"),
        ("!!! :::", "names a module that there is not"),
    ],
)
def test_a_mistaken_entry_point_is_named(
    install: Install, signals: SignalRegistry, target: str, reason: str
) -> None:
    install("ours", GOOD, value=target)
    (report,) = load_plugins(signals=signals)
    assert report.status == "failed"
    assert f"its entry point ours = {target} {reason}" in report.reason


def test_the_place_of_a_failure_is_told_and_its_text_is_not_logged(
    install: Install, signals: SignalRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    install("good", GOOD)
    install("quotes", "import os\nos.environ['hunter2']")
    install(
        "unshowable",
        """
    class Bad(Exception):
        def __str__(self):
            raise ValueError

    Bad.__name__ = "Bad\\nERROR forged"
    raise Bad
    """,
    )
    good, quotes, unshowable = load_plugins(signals=signals)
    assert good.ok
    assert "hunter2" in quotes.reason
    assert "quotes.py, line 2)" in quotes.reason
    assert unshowable.reason.startswith(r"Bad\nERROR forged (")
    assert "hunter2" not in caplog.text
    assert "\nERROR forged" not in caplog.text
    assert "quotes.py, line 2); the report has its text" in caplog.text


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


def test_a_plugin_that_needs_anothers_event_is_loaded_after_it(
    install: Install, signals: SignalRegistry
) -> None:
    listening = """
    from madcrow_events import HandlerGroup

    group = HandlerGroup("x")
    group.on("{0}")(lambda: None)
    """
    install("aaa", listening.format("bbb.done"))
    install("bbb", f"{textwrap.dedent(listening.format('zzz.done'))}\ngroup.signal('bbb.done')")
    install("nobody", listening.format("nobody.does"))
    install("zzz", "from madcrow_events import *\ngroup = HandlerGroup('z')\n"
            "group.signal('zzz.done')\ngroup.on('zzz.done')(lambda: None)")  # fmt: skip
    reports = load_plugins(signals=signals)
    assert [report.status for report in reports] == ["loaded", "loaded", "failed", "loaded"]
    assert "UnknownEventError" in reports[2].reason


def test_a_check_knows_no_event_of_the_application(install: Install) -> None:
    madcrow_signals.signal("order_placed")
    listens = "from madcrow_events import *\ngroup = HandlerGroup('it')\n"
    install("ours", f"{listens}group.on('order_placed')(lambda total: None)")
    (report,) = check_plugins()
    assert report.ok, report


def test_only_what_a_plugin_brought_goes_with_it(
    install: Install, signals: SignalRegistry, tmp_path: Path
) -> None:
    (tmp_path / "shop_events.py").write_text(
        "from madcrow_events import madcrow_signals\n"
        "order_placed = madcrow_signals.signal('order_placed')\n"
    )
    install("ours", "import shop_events\nfrom madcrow_events import HandlerGroup\n"
            "group = HandlerGroup('it')\ngroup.signal('ours.own')\n"
            "group.on(shop_events.order_placed)(lambda: None)")  # fmt: skip
    (report,) = load_plugins()
    assert report.signals == ("ours.own",)
    assert unload_plugin("ours")
    assert "order_placed" in madcrow_signals
    assert "ours.own" not in madcrow_signals


def test_unloading_in_an_isolated_block_is_undone(
    install: Install, signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    install("ours", GOOD)
    (report,) = load_plugins(signals=signals)
    with signals.isolated():
        assert unload_plugin("ours", signals=signals)
        assert "good.happened" not in signals
    dispatcher.emit("good.happened", n=1)
    assert sys.modules["ours"].seen == [{"n": 1}]
    assert load_plugins(signals=signals) == [report]
    assert unload_plugin("ours", signals=signals)
    assert not unload_plugin("ours", signals=signals)


def test_a_plugin_that_isolates_as_it_is_loaded_is_loaded(
    install: Install, signals: SignalRegistry
) -> None:
    isolating = "from madcrow_events import madcrow_signals\nwith madcrow_signals.isolated(): pass"
    install("ours", f"{isolating}\n{textwrap.dedent(GOOD)}")
    assert load_plugins()[0].ok
    assert unload_plugin("ours")


def test_a_plugin_that_is_being_unloaded_is_not_loaded(
    install: Install, signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    install("ours", f"import threading\ninside, over = threading.Event(), threading.Event()\n"
            f"{textwrap.dedent(GOOD)}    inside.set()\n    over.wait(10)\n")  # fmt: skip
    assert load_plugins(signals=signals)[0].ok
    module = sys.modules["ours"]
    emitting = threading.Thread(target=dispatcher.emit, args=("good.happened",))
    unloading = threading.Thread(target=unload_plugin, args=("ours",), kwargs={"signals": signals})
    emitting.start()
    module.inside.wait(10)
    unloading.start()
    while signals.subscriptions:
        time.sleep(0.001)
    assert load_plugins(signals=signals)[0].status == "refused"
    assert not unload_plugin("ours", signals=signals)
    module.over.set()
    unloading.join()
    emitting.join()
    assert load_plugins(signals=signals)[0].ok


def test_a_group_under_two_entry_points_is_loaded_once(
    install: Install, signals: SignalRegistry
) -> None:
    install("ours", GOOD)
    install("ours-too", "from ours import group")
    first, second = load_plugins(signals=signals)
    assert first.ok
    assert "its group is loaded already, as ours-too:ours_too" in second.reason
    assert len(signals.subscriptions) == 1


def test_what_a_module_subscribes_to_the_default_registry_is_found_too(
    install: Install, signals: SignalRegistry
) -> None:
    install("ours", f"{textwrap.dedent(GOOD)}\nfrom functools import partial\n"
            "from madcrow_events import register_handler\ndef f(x): pass\n"
            "register_handler('user_logged_in', partial(f, 1))")  # fmt: skip
    install("proxy", f"{textwrap.dedent(GOOD)}\nfrom madcrow_events import register_handler\n"
            "class Proxy:\n    def __call__(self): pass\n"
            "    @property\n    def __module__(self): raise RuntimeError\n"
            "register_handler('user_logged_in', Proxy())")  # fmt: skip
    ours, proxy = load_plugins(signals=signals)
    assert ours.status == "failed"
    assert "ours.f is subscribed to user_logged_in outside of" in ours.reason
    assert proxy.ok  # whose that handler is cannot be told
    assert len(madcrow_signals.subscriptions) == 1


@pytest.mark.guarantee("P2")
def test_two_with_one_name_are_both_refused(
    install: Install, signals: SignalRegistry, tmp_path: Path
) -> None:
    install("one", "1 / 0", entry_point="twin")
    install("two", "1 / 0", entry_point="twin")
    for deny in ([], ["one:twin"]):
        reports = load_plugins(deny=deny, signals=signals)
        assert [report.status for report in reports] == ["refused", "refused"]
        assert "one:twin and two:twin offer one name: uninstall all but one" in reports[1].reason


OWN_EVENTS = """
    from madcrow_events import BaseEventContext, HandlerGroup, emit_event, madcrow_signals


    class Paid(BaseEventContext):
        amount: int


    paid = madcrow_signals.signal("aaa.paid", context=Paid)
    sent = madcrow_signals.signal("aaa.sent", context=Paid)
    group = HandlerGroup("aaa")
    seen = []


    @group.on("aaa.paid")
    def note(context: Paid):
        emit_event("aaa.sent", amount=context.amount)
        seen.append(context.amount)
"""


def test_events_that_a_module_declares_come_with_each_load(install: Install) -> None:
    """A module is imported once, and may have failed, been unloaded, or isolated since."""
    install("aaa", f"{textwrap.dedent(OWN_EVENTS)}\ngroup.on('zzz.done')(lambda: None)")
    install("zzz", GOOD.replace("good.happened", "zzz.done"))
    with madcrow_signals.isolated():
        assert load_plugins(deny=["zzz"])[0].status == "failed"
        assert not {"aaa.paid", "aaa.sent", "zzz.done"} & set(madcrow_signals)
    amounts = []
    for isolates in (True, True, False, False):
        with madcrow_signals.isolated() if isolates else nullcontext():
            aaa, zzz = load_plugins()
            assert aaa.ok, aaa
            assert zzz.ok
            assert sorted(aaa.signals) == ["aaa.paid", "aaa.sent"]
            amounts.append(len(amounts))
            module = sys.modules["aaa"]
            get_event_dispatcher().emit_typed(module.paid, module.Paid(amount=len(amounts) - 1))
            assert module.seen == amounts
            if not isolates:
                assert unload_plugin("aaa")
                assert unload_plugin("zzz")
        assert not {"aaa.paid", "aaa.sent", "zzz.done"} & set(madcrow_signals)
    mine = madcrow_signals.signal("aaa.paid", "mine")
    assert (mine.doc, mine.context_model) == ("mine", None)


def test_a_plugin_may_be_loaded_into_two_registries(
    install: Install, signals: SignalRegistry
) -> None:
    install("ours", GOOD)
    assert load_plugins()[0].ok
    assert load_plugins(signals=signals)[0].ok
    assert len(signals.subscriptions) == len(madcrow_signals.subscriptions) == 1
    assert unload_plugin("ours")
    assert len(signals.subscriptions) == 1


def test_an_event_that_another_plugin_declares_too_stays(
    install: Install, signals: SignalRegistry
) -> None:
    install("ours", GOOD)
    install("theirs", GOOD)
    assert all(report.ok for report in load_plugins(signals=signals))
    signals.unsubscribe("good.happened", sys.modules["theirs"].note)
    assert unload_plugin("ours", signals=signals)
    assert "good.happened" in signals


def test_text_in_an_error_of_this_packages_kinds_is_not_logged(
    install: Install, signals: SignalRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    install("ours", "from madcrow_events import *\nraise PluginError('hunter2')")
    install("madcrow-events-acme", "raise ValueError")
    acme, ours = load_plugins(signals=signals)
    assert "hunter2" in ours.reason
    assert "hunter2" not in caplog.text
    assert "madcrow_events_acme.py, line 1)" in acme.reason
