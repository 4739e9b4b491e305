"""What a plugin brought goes with it, and nothing else."""

from __future__ import annotations

import gc
import importlib
import sys
import textwrap
from contextlib import nullcontext
from pathlib import Path

import pytest

from madcrow_events import EventDispatcher, SignalRegistry, get_event_dispatcher, madcrow_signals
from madcrow_events.plugins import load_plugins, unload_plugin
from support.inside import NO_RESULT
from support.plugins import GOOD, Install


@pytest.mark.guarantee("P3")
def test_a_plugin_whose_import_failed_is_loaded_as_if_for_the_first_time(
    install: Install, signals: SignalRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a module had added to the group of another module, before it failed, came twice."""
    install("ours", "", value="acme:group")
    sources = {
        "__init__": "from acme.base import group\nimport acme.alerts",
        "base": "from madcrow_events import HandlerGroup\ngroup = HandlerGroup('ours')",
        "alerts": "import os\nfrom acme.base import group\n"
        "group.on('paid')(lambda: 'told')\nos.environ['ACME_KEY']",
    }
    (tmp_path / "acme").mkdir()
    for name, source in sources.items():
        (tmp_path / "acme" / f"{name}.py").write_text(source)
    paid = signals.signal("paid")
    monkeypatch.delenv("ACME_KEY", raising=False)
    assert not load_plugins(signals=signals)[0].ok
    monkeypatch.setenv("ACME_KEY", "1")
    (report,) = load_plugins(signals=signals)
    assert report.handlers == ("paid",), report
    assert [value for _, value in paid.send()] == ["told"]


@pytest.mark.guarantee("P3")
@pytest.mark.parametrize("after", ["", "\n1 / 0"])
def test_a_plugin_that_clears_all_handlers_as_it_is_imported_has_failed(
    install: Install, signals: SignalRegistry, dispatcher: EventDispatcher, after: str
) -> None:
    """A line left over from its tests took the handlers of the application away."""
    install("ours", f"import madcrow_events\nmadcrow_events.clear_all_handlers(){after}")
    heard = madcrow_signals.signal("order_placed").subscribe(lambda: None)
    (report,) = load_plugins(signals=signals)
    assert report.status == "failed"
    assert "its import clears all handlers" in report.reason
    assert heard.active
    madcrow_signals.clear_handlers()
    assert not heard.active


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
        if time_around in (19, 59, 99):
            gc.collect()
            sizes.append(len(gc.get_objects()))
    # Less than one for each time; what earlier tests have left behind may go or come once.
    assert min(sizes[1] - sizes[0], sizes[2] - sizes[1]) < 40


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
    assert subscription._call_spec.invoke(None, None) is NO_RESULT


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


SHARED = {
    "a folder": None,
    "pkgutil": "__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n",
    "pkg_resources": """
        try:
            __import__("pkg_resources").declare_namespace(__name__)
        except ImportError:
            from pkgutil import extend_path
            __path__ = extend_path(__path__, __name__)
        """,
}


@pytest.mark.guarantee("P3")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    "shared",  # the last one is not part of every Python, and is imported anew each time
    ["a folder", "pkgutil", pytest.param("pkg_resources", marks=pytest.mark.once)],
)
@pytest.mark.parametrize(
    "module", ["bigcorp.alerts", "bigcorp.alerts.plugin", "bigcorp.apps.alerts", "bigcorp.apps.a.b"]
)
@pytest.mark.parametrize("imported", ["", "bigcorp", "bigcorp.core"])
def test_what_others_in_a_namespace_do_is_not_the_plugins(
    install: Install, tmp_path: Path, shared: str, module: str, imported: str
) -> None:
    """Neither what fails with the plugin, nor what is unloaded with it."""
    library = """
        from madcrow_events import LoginEventContext, madcrow_signals, on_event
        class Kept(LoginEventContext): pass
        kept = madcrow_signals.signal("books.kept", context=Kept)
        @on_event("user_logged_in")
        def keep_books(sender, **context): pass
        """
    plugin = """
        from madcrow_events import HandlerGroup
        import bigcorp.core
        group = HandlerGroup("alerts")
        @group.on("user_logged_in")
        def alert(): pass
        FAILURE
        """
    folder = tmp_path.joinpath(*module.split("."))
    folder.mkdir(parents=True)
    (tmp_path / "bigcorp" / "core.py").write_text(textwrap.dedent(library))
    for package in [it for it in folder.relative_to(tmp_path).parents if it.parts]:
        if package.name in ("bigcorp", "apps") and SHARED[shared] is not None:
            (tmp_path / package / "__init__.py").write_text(textwrap.dedent(SHARED[shared] or ""))
        elif package.name not in ("bigcorp", "apps"):
            (tmp_path / package / "__init__.py").touch()
    source = textwrap.dedent(plugin)
    (folder / "__init__.py").write_text(source.replace("FAILURE", "1 / 0"))
    install("bigcorp-alerts", "", value=f"{module}:group")
    if imported:
        importlib.import_module(imported)
    assert load_plugins()[0].status == "failed"
    assert [it.handler.__name__ for it in madcrow_signals.subscriptions] == ["keep_books"]
    assert "books.kept" in madcrow_signals
    (folder / "__init__.py").write_text(source.replace("FAILURE", ""))
    (report,) = load_plugins()
    assert report.ok, report
    assert report.signals == ()
    assert unload_plugin("bigcorp-alerts")
    assert [it.handler.__name__ for it in madcrow_signals.subscriptions] == ["keep_books"]
    assert "books.kept" in madcrow_signals


@pytest.mark.parametrize("shared", SHARED)
def test_what_a_plugin_does_beside_its_group_in_a_namespace_is_its_own(
    install: Install, tmp_path: Path, shared: str
) -> None:
    """In the modules of the package below the namespace."""
    folder = tmp_path / "bigcorp" / "alerts"
    folder.mkdir(parents=True)
    if SHARED[shared] is not None:
        (tmp_path / "bigcorp" / "__init__.py").write_text(textwrap.dedent(SHARED[shared] or ""))
    (folder / "__init__.py").touch()
    (folder / "extra.py").write_text(
        "from madcrow_events import on_event\non_event('user_logged_in')(lambda: None)\n"
    )
    (folder / "plugin.py").write_text(f"import bigcorp.alerts.extra\n{textwrap.dedent(GOOD)}")
    install("bigcorp-alerts", "", value="bigcorp.alerts.plugin:group")
    (report,) = load_plugins()
    assert report.status == "failed"
    assert "is subscribed to user_logged_in outside of the plugin's group" in report.reason
    assert not madcrow_signals.subscriptions


def test_a_package_whose_code_cannot_be_read_is_the_plugins(
    install: Install, tmp_path: Path
) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "__init__.py").write_text(
        "from madcrow_events import on_event\non_event('user_logged_in')(lambda: None)\n"
    )
    unreadable = "import odd\nodd.__spec__.loader = None\n"
    (tmp_path / "odd" / "plugin.py").write_text(f"{unreadable}{textwrap.dedent(GOOD)}")
    install("odd-one", "", value="odd.plugin:group")
    (report,) = load_plugins()
    assert report.status == "failed"
    assert "is subscribed to user_logged_in outside of the plugin's group" in report.reason
