"""Which sources are read, and which calls of `load_plugins` in them are found."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from madcrow_events.cli._doctor._code import UNKNOWN
from madcrow_events.cli._doctor._modules import modules_of, own_modules
from madcrow_events.cli._doctor._sources import read_sources

UNLISTED = {
    "plain": "load_plugins()",
    "with other arguments": "load_plugins(deny=['bad'], signals=signals)",
    "None": "load_plugins(allow=None)",
    "another name": "from madcrow_events import load_plugins as them\nthem()",
    "of its module": "import madcrow_events\nmadcrow_events.load_plugins()",
    "of its module, by another name": "import madcrow_events as me\nme.load_plugins()",
    "of its own module": "from madcrow_events import plugins\nplugins.load_plugins()",
    "in a function": "def start():\n    load_plugins()",
    "imported in a function": (
        "def start():\n    from madcrow_events.plugins import load_plugins as them\n    them()"
    ),
    "its module imported in a function": (
        "def start():\n    import madcrow_events.plugins\n    madcrow_events.plugins.load_plugins()"
    ),
    "handed to a thread": "def start(pool):\n    pool.submit(load_plugins)",
    "kept in a class": "class App:\n    load = load_plugins\ndef start():\n    App.load()",
    "kept in another module": "from . import others\ndef start():\n    others.load_plugins()",
}


@pytest.mark.parametrize("how", UNLISTED)
def test_load_plugins_without_a_list_is_found(examine_app, how):
    """However it is called."""
    examined = examine_app(UNLISTED[how], others="")
    (found,) = examined.of("unlisted_plugins")
    assert found["subject"] == "load_plugins"
    assert examined.lines("unlisted_plugins")[0].endswith(")")


LISTED = {
    "a list": "load_plugins(allow=[])",
    "in a partial": "from functools import partial\npartial(load_plugins, allow=[])",
    "a variable": "allowed = ()\nload_plugins(allow=allowed)",
    "what may be a list": "options = {'allow': []}\nload_plugins(**options)",
    "what a function is given": "def start(allowed):\n    load_plugins(allow=allowed)",
    "what an object has": "def start(settings):\n    load_plugins(allow=settings.plugins)",
    "another function": "def load_plugins(): ...\nload_plugins()",
    "a method": "class App:\n    def load_plugins(self): ...\nApp().load_plugins()",
    "a function without a name": "(lambda: 1)()",
    "from beyond the package": (
        "def start():\n    from ...... import load_plugins as them\n    them()"
    ),
    "from what was not imported": (
        "def start():\n    from nowhere import load_plugins as them\n    import nowhere.at.all\n"
        "    them()"
    ),
}


@pytest.mark.parametrize("how", LISTED)
def test_load_plugins_with_a_list_is_no_finding(examine_app, how):
    """Nor is what may have one, or another function."""
    assert examine_app(LISTED[how]).record["findings"] == []


def test_the_list_of_the_environment_counts(examine_app, monkeypatch):
    """It holds for each call; an empty one is none."""
    monkeypatch.setenv("MADCROW_EVENTS_PLUGINS_ALLOW", " , ")
    assert examine_app("load_plugins()").kinds == {"unlisted_plugins"}
    monkeypatch.setenv("MADCROW_EVENTS_PLUGINS_ALLOW", "acme-alerts")
    assert "unlisted_plugins" not in examine_app("load_plugins()").kinds


def test_only_the_sources_of_the_application_are_blamed(tmp_path, monkeypatch, examine_app):
    """What is installed is not; it may say, however, that it handles an event.

    And nobody needs to handle what it declares.
    """
    site = tmp_path / "site-packages"
    site.mkdir()
    (site / "app_installed.py").write_text(
        "from madcrow_events import load_plugins, madcrow_signals, on_event\n"
        "madcrow_signals.signal('offered_by_another')\n"
        "def start():\n    load_plugins()\n    on_event('order_placed')(print)\n"
        "    on_event('gone')(print)\n"
    )
    (tmp_path / "app_beside.py").write_text("from madcrow_events import *\nload_plugins()\n")
    monkeypatch.syspath_prepend(str(site))
    examined = examine_app("import app_installed, app_beside\nsignals.signal('order_placed')")
    assert examined.kinds == {"unlisted_plugins"}
    assert [Path(str(it["file"])).name for it in examined.record["findings"]] == ["app_beside.py"]


def test_an_installed_application_is_its_top_package(tmp_path, monkeypatch):
    """Not all that is installed beside it."""
    site = tmp_path / "site-packages"
    site.mkdir()
    for name in ("app_own", "app_other"):
        (site / f"{name}.py").write_text("from madcrow_events import load_plugins\nload_plugins()")
        module = ModuleType(name)
        module.__file__ = str(site / f"{name}.py")
        monkeypatch.setitem(sys.modules, name, module)
    modules = ["app_own", "app_other", "app_gone"]
    assert own_modules(modules, "app_own", None) == {"app_own"}
    assert own_modules(["sys", "app_own"], "sys", None) == {"sys"}


ODD = {
    "without a source": None,
    "in no Python": "no Python at all",
    "too deep": f"x = {'(' * 99_999}",
    "with a character that no source has": "x = '\0'",
}


@pytest.mark.parametrize("how", ODD)
def test_what_cannot_be_read_says_nothing(tmp_path, monkeypatch, how):
    """Its file may be gone, or have changed since it was imported."""
    file = tmp_path / "app_odd.py"
    text = ODD[how]
    if text is not None:
        file.write_text(text)
    module = ModuleType("app_odd")
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "app_odd", module)
    assert read_sources(["app_odd"], {"app_odd"}).calls == []


def test_a_source_that_makes_trouble_says_nothing(monkeypatch):
    """Whatever happens while it is read costs only what it would have told."""

    def fail(*_arguments, **_options):
        raise RuntimeError

    monkeypatch.setattr("madcrow_events.cli._doctor._sources._read", fail)
    assert read_sources(["json"], {"json"}).calls == []


def test_no_code_of_the_application_runs(examine_app):
    """Proxies are not asked what they stand for."""
    examined = examine_app(
        """
        import sys
        sys.modules[__name__ + ".odd"] = None
        class Proxy:
            asked = []
            @property
            def __class__(self):
                self.asked.append("__class__")
                raise RuntimeError("outside of a request")
            def __getattr__(self, name):
                raise RuntimeError("outside of a request")
        proxy = Proxy()
        def start():
            proxy.on("order_placed")
            proxy.signals.subscribe(proxy, print)
        """
    )
    assert sys.modules[examined.name].Proxy.asked == []
    assert repr(UNKNOWN).startswith("<object")
    assert modules_of(examined.name, frozenset(sys.modules)) == [
        examined.name,
        f"{examined.name}.odd",
    ]


def test_odd_objects_say_nothing(examine_app):
    """Whatever fails in looking at one costs only that one."""
    examined = examine_app(
        """
        class Meta(type):
            def __getattribute__(cls, name): raise RuntimeError
            def __eq__(cls, other): raise RuntimeError
            def __hash__(cls): raise RuntimeError
        class Odd(metaclass=Meta): ...
        class Base(BaseEventContext): ...
        package, __package__ = __package__, 5
        def start(registry):
            from . import others
            registry.subscribe(Odd, print)
            Odd.on(Odd.x)
            load_plugins()
        """
    )
    assert examined.kinds == {"unlisted_plugins"}


def test_a_lazy_module_stays_lazy(examine_app):
    """It is imported when the application first uses it, and not by being looked at."""
    examined = examine_app(
        """
        import importlib.util, sys
        signals.signal("order_placed")
        spec = importlib.util.find_spec("app.lazy")
        spec.loader = importlib.util.LazyLoader(spec.loader)
        lazy = sys.modules["app.lazy"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(lazy)
        """,
        lazy="from madcrow_events import load_plugins\ndone = []\n"
        "on_event('order_placed')(print)\ndef start():\n    load_plugins()",
    )
    assert examined.lines("unlisted_plugins") == ["load_plugins()"]
    assert examined.kinds == {"unlisted_plugins"}
    module = sys.modules[f"{examined.name}.lazy"]
    assert "done" not in object.__getattribute__(module, "__dict__")
    assert module.done == []
