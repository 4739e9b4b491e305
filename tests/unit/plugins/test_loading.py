"""Plugins are loaded, reported on and unloaded; see tests/packaging for built distributions."""

from __future__ import annotations

import builtins
import re
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext

import pytest

from madcrow_events import (
    EventDispatcher,
    HandlerGroup,
    LogoutEventContext,
    SignalRegistry,
    UnknownEventError,
)
from madcrow_events.exceptions import InvalidOptionError, PluginError
from madcrow_events.plugins import discover_plugins, load_plugins, unload_plugin
from support.inside import loaded_in
from support.plugins import GOOD, Install

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


BY_CLASS = """
    from madcrow_events import *

    class Sent(BaseEventContext):
        number: int

    group = HandlerGroup("by_class")
    group.signal("good.sent", context=Sent)

    @group.on(Sent)
    def of_own(number): return number

    @group.on(BaseEventContext, priority=-1)
    def of_every(emission: Emission): return emission.event
"""


@pytest.mark.guarantee("P3")
@pytest.mark.guarantee("H8")
def test_a_plugin_whose_handlers_are_for_classes_is_unloaded_with_them(
    install: Install, signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    install("by_class", BY_CLASS)
    logged_out = signals.signal("logged_out", context=LogoutEventContext)
    context = LogoutEventContext(user_id=1, email="")
    for _ in range(2):
        (report,) = load_plugins(signals=signals)
        assert (report.signals, report.handlers) == (("good.sent",), ("Sent", "BaseEventContext"))
        sent = signals["good.sent"].context_model
        assert sent is not None
        values = [result.value for result in dispatcher.emit(sent(number=7)).results]
        assert values == [7, "good.sent"]
        assert [it.value for it in logged_out.emit(context).results] == ["logged_out"]
        assert unload_plugin("by_class", signals=signals)
        assert not signals.subscriptions
        assert not logged_out.emit(context).results
        with pytest.raises(UnknownEventError):
            dispatcher.emit(sent(number=7))


@pytest.mark.guarantee("P3")
@pytest.mark.parametrize(
    ("source", "requires", "status", "reason"),
    [
        ("import nothing_of_this_name", "", "failed", "No module named 'nothing_of_this_name'"),
        ("def", "", "failed", "SyntaxError"),
        ("other = 1", "", "failed", "names an object that the module does not have"),
        ("group = 1", "", "failed", "= bad:group names int, not a HandlerGroup"),
        ("raise SystemExit(3)", "", "failed", "SystemExit: 3"),
        ("from madcrow_events import HandlerGroup\ngroup = HandlerGroup('new', api_version=2)",
         "", "failed", "asks for api_version 2"),
        (GOOD, "absent-thing>=3\nx; extra == 'x'", "refused", "install 'absent-thing>=3'"),
        (HALF, "", "failed", "UnknownEventError: no event is called"),
        (HALF, "", "failed", ": import the application first"),
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
def test_an_interrupt_goes_through_and_leaves_nothing(
    install: Install, signals: SignalRegistry
) -> None:
    install("ours", f"{textwrap.dedent(GOOD)}\nraise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_plugins(signals=signals)
    assert not signals
    assert not loaded_in(signals).by_key


def test_a_plugin_is_loaded_once_however_many_ask(
    install: Install, signals: SignalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself, and by other threads."""
    install(
        "ours",
        f"""
    import builtins
    from madcrow_events.plugins import load_plugins

    (inner,) = load_plugins(signals=builtins.signals_of_the_test)
    assert builtins.others_are_refused.wait(20)
    {GOOD}
    """,
    )
    refused = threading.Event()
    monkeypatch.setattr(builtins, "signals_of_the_test", signals, raising=False)
    monkeypatch.setattr(builtins, "others_are_refused", refused, raising=False)
    reports = []

    def load() -> None:
        reports.extend(load_plugins(signals=signals))
        if len(reports) == 3:
            refused.set()

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
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
            loaded_in(signals).by_key.setdefault("another", self)

    loaded_in(signals).by_key["one"] = Loaded()
    assert load_plugins(signals=signals) == []
    assert loaded_in(signals).by_key.keys() == {"one", "another"}


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


def test_a_group_asks_for_a_version_that_there_is() -> None:
    assert HandlerGroup("it", api_version=1).api_version == 1
    with pytest.raises(PluginError, match=r"it asks for api_version 2.*upgrade.*older") as caught:
        HandlerGroup("it", api_version=2)
    assert caught.value.plugin == "it"
    for version in (0, True, "1", 1.0):
        with pytest.raises(InvalidOptionError, match="positive int"):
            HandlerGroup("it", api_version=version)  # type: ignore[arg-type]


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


def test_text_in_an_error_of_this_packages_kinds_is_not_logged(
    install: Install, signals: SignalRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    install("ours", "from madcrow_events import *\nraise PluginError('hunter2')")
    install("madcrow-events-acme", "raise ValueError")
    acme, ours = load_plugins(signals=signals)
    assert "hunter2" in ours.reason
    assert "hunter2" not in caplog.text
    assert "madcrow_events_acme.py, line 1)" in acme.reason


CLEARINGS: dict[str, Callable[[SignalRegistry], object]] = {
    "clear_handlers": SignalRegistry.clear_handlers,
    "cancel": lambda signals: [it.cancel() for it in signals.subscriptions],
    "unregister": lambda signals: sys.modules["ours"].group.unregister(signals),
    "forget": lambda signals: (signals.clear_handlers(), signals.clear()),
}


@pytest.mark.guarantee("P1")
@pytest.mark.parametrize("how", CLEARINGS)
@pytest.mark.parametrize("isolates", [False, True])
def test_a_plugin_whose_handlers_were_all_removed_is_loaded_again(
    install: Install,
    signals: SignalRegistry,
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    how: str,
    isolates: bool,
) -> None:
    """As a fixture of somebody's tests removes them; unloading takes them out as ever."""
    install("ours", GOOD)
    caplog.set_level("INFO")
    reports = load_plugins(signals=signals)
    for emitted in range(1, 4):
        with signals.isolated() if isolates else nullcontext():
            CLEARINGS[how](signals)
            assert load_plugins(signals=signals) == reports
            assert "its handlers had been removed, and are subscribed again" in caplog.text
            dispatcher.emit("good.happened", n=1)
            assert len(sys.modules["ours"].seen) == emitted
    caplog.clear()
    assert load_plugins(signals=signals) == reports
    assert not caplog.records
    assert len(signals.subscriptions) == 1
    assert unload_plugin("ours", signals=signals)
    assert not signals.subscriptions
    assert "good.happened" not in signals


def test_what_the_application_has_removed_of_a_plugin_stays_away(
    install: Install, signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """One of several handlers, or one that was for one call."""
    several = f"{textwrap.dedent(GOOD)}\n@group.on('good.happened')\ndef noisy(): 1 / 0\n"
    install("several", several)
    install(
        "single",
        GOOD.replace("good", "single").replace('ed")\n    def', 'ed", once=True)\n    def'),
    )
    load_plugins(signals=signals)
    signals.unsubscribe("good.happened", sys.modules["several"].noisy)
    for _ in range(2):
        assert dispatcher.emit("good.happened").ok
        dispatcher.emit("single.happened")
        assert all(report.ok for report in load_plugins(signals=signals))
    assert len(sys.modules["several"].seen) == 2
    assert len(sys.modules["single"].seen) == 1


def test_a_plugin_that_no_longer_fits_when_it_is_loaded_again_has_failed(
    install: Install, signals: SignalRegistry
) -> None:
    """Until it fits."""
    install("ours", f"{textwrap.dedent(CLASHING)}\ngroup.on('taken')(lambda: None)")
    assert load_plugins(signals=signals)[0].ok
    signals.clear_handlers()
    signals.clear()
    signals.signal("taken", context=LogoutEventContext)
    (report,) = load_plugins(signals=signals)
    assert report.status == "failed"
    assert "SignalConflictError" in report.reason
    assert not signals.subscriptions
    signals.clear()
    assert load_plugins(signals=signals)[0].ok
    assert unload_plugin("ours", signals=signals)
