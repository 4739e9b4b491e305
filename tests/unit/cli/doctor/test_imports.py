"""How long imports take, and that taking the time changes nothing else."""

from __future__ import annotations

import importlib
import importlib.resources
import importlib.util
import sys
import threading
import zipfile
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from madcrow_events.cli._doctor import _imports
from madcrow_events.cli._doctor._imports import ImportTimes, slow_imports


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder on the path of imports, whose modules are forgotten after the test."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_slow_modules_are_found(examine_app, monkeypatch):
    """With their own time, without that of what they import."""
    monkeypatch.setattr(_imports, "SLOW", 0.1)
    examined = examine_app("import app.slow", slow="import time\ntime.sleep(0.15)")
    assert examined.subjects("slow_import") == ["app.slow"]
    (found,) = examined.of("slow_import")
    assert found["message"].endswith(".slow takes 0.2 s, without what it imports")
    assert str(found["file"]).endswith("slow.py")
    assert found["line"] == 1


def test_a_slow_module_that_lies_elsewhere_is_found():
    """As on the path of imports, but not installed, and not of the standard library."""
    (found,) = slow_imports({__name__: 2.0, "json": 2.0, "pytest": 2.0}, set())
    assert found["subject"] == __name__


def test_a_module_without_a_file_has_no_place():
    """It may have been removed meanwhile."""
    seconds = {"it": 2.0, "quick": 0.1, "another's": 2.0, "pytest": 2.0, "json": 2.0}
    (found,) = slow_imports(seconds, {"it", "quick"})
    assert (found["file"], found["line"]) == (None, None)


@pytest.mark.parametrize(
    ("took", "worked", "fair"), [(2.0, 1.9, 1.9), (2.0, 0.4, 0.4), (2.0, 0.01, 2.0)]
)
def test_waiting_for_a_processor_does_not_count(took, worked, fair):
    """What has worked for a part of its time may have waited for one; what has not, has slept."""
    assert _imports._fair(took, worked) == fair


def test_failing_modules_are_timed_and_fail_as_they_do(folder):
    """The exception goes through."""
    (folder / "failing_module.py").write_text("1 / 0")
    with ImportTimes() as times, pytest.raises(ZeroDivisionError):
        importlib.import_module("failing_module")
    assert "failing_module" in times.seconds


def test_each_thread_has_its_own_times(folder):
    """What another thread imports is none of the time of this one."""
    (folder / "aside_module.py").write_text("")
    (folder / "waiting_module.py").write_text(
        "import threading\nit = threading.Thread(target=__import__, args=('aside_module',))\n"
        "it.start()\nit.join()\n"
    )
    with ImportTimes() as times:
        importlib.import_module("waiting_module")
    assert times.seconds.keys() == {"waiting_module", "aside_module"}
    assert threading.active_count() >= 1


def test_all_kinds_of_modules_are_imported_as_ever(folder):
    """Packages with resources and without `__init__`, archives, and those written in C."""
    package = folder / "resourceful"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "text.txt").write_text("a text")
    (folder / "no_init").mkdir()
    (folder / "no_init" / "inside.py").write_text("x = 1")
    with zipfile.ZipFile(folder / "archive.zip", "w") as archive:
        archive.writestr("zipped_one.py", "import zipped_two")
        archive.writestr("zipped_two.py", "x = 2")
    sys.path.append(str(folder / "archive.zip"))
    path_hook_importers = list(sys.meta_path)
    try:
        with ImportTimes() as times:
            resourceful = importlib.import_module("resourceful")
            text = importlib.resources.files(resourceful).joinpath("text.txt").read_text()
            assert text == "a text"
            assert importlib.import_module("no_init.inside").x == 1
            assert importlib.import_module("zipped_one").zipped_two.x == 2
            for name in ("_elementtree", "__hello__", "_symtable"):  # in C, frozen, built in
                sys.modules.pop(name, None)
                importlib.import_module(name)
            assert importlib.util.find_spec("resourceful.absent") is None
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module("resourceful.absent")
    finally:
        sys.path.remove(str(folder / "archive.zip"))
    assert {"resourceful", "no_init.inside", "zipped_one", "zipped_two"} <= times.seconds.keys()
    assert sys.meta_path == path_hook_importers
    loaders = [sys.modules[name].__spec__.loader for name in times.seconds if name in sys.modules]
    assert not any("exec_module" in getattr(it, "__dict__", {}) for it in loaders)


class OddFinder:
    """Finds a module whose loader is as old, or as closed, as loaders can be."""

    def __init__(self, loader: object) -> None:
        self.loader = loader

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self.loader) if name == "odd_module" else None  # type: ignore[arg-type]


class ClosedLoader:
    __slots__ = ()

    def create_module(self, spec: ModuleSpec) -> None: ...
    def exec_module(self, module: ModuleType) -> None:
        module.x = 3  # type: ignore[attr-defined]


class OldLoader:
    def load_module(self, name: str) -> ModuleType:
        module = sys.modules[name] = ModuleType(name)
        module.x = 3  # type: ignore[attr-defined]
        return module


@pytest.mark.filterwarnings("ignore")  # Python's, on old loaders
@pytest.mark.parametrize("loader", [ClosedLoader(), ClosedLoader, OldLoader()])
def test_loaders_that_cannot_be_timed_are_left_alone(folder, monkeypatch, loader):
    """Their modules are imported, without a time; so they are under other import hooks."""
    if sys.version_info >= (3, 15) and isinstance(loader, OldLoader):
        pytest.skip("Python has no such loaders any more")
    found = loader() if loader is ClosedLoader else loader
    monkeypatch.setattr(sys, "meta_path", [OddFinder(found), object(), *sys.meta_path])
    with ImportTimes() as times:
        assert importlib.import_module("odd_module").x == 3
    assert times.seconds == {}
