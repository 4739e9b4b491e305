"""Plugins as distributions: built, installed into an environment of their own, and loaded there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

HEAD = "from madcrow_events import HandlerGroup, LoginEventContext\n"

PLUGINS = {
    # name: (source, further lines of [project], status, a part of the reason)
    "good": (
        HEAD + "group = HandlerGroup('good')\ngroup.signal('good.happened')\n"
        "@group.on('good.happened')\ndef note(**context): pass\n",
        "",
        "loaded",
        "",
    ),
    "import-error": ("import nothing_of_this_name", "", "failed", "ModuleNotFoundError"),
    "syntax-error": ("def", "", "failed", "SyntaxError"),
    "missing-attribute": ("other = 1", "", "failed", "an object that the module does not have"),
    "wrong-type": ("group = []", "", "failed", "names list, not a HandlerGroup"),
    "half-registered": (
        HEAD + "group = HandlerGroup('half')\ngroup.signal('half.happened')\n"
        "@group.on('half.happened')\ndef first(**context): pass\n"
        "@group.on('no_such_event')\ndef second(**context): pass\n",
        "",
        "failed",
        "UnknownEventError",
    ),
    "exits": ("raise SystemExit(3)", "", "failed", "SystemExit: 3"),
    "lacks": (HEAD + "1 / 0", "dependencies = ['absent-thing>=3']", "refused", "absent-thing"),
    "newer": (HEAD + "group = HandlerGroup('n', api_version=2)", "", "failed", "version 2"),
    "clashing": (
        HEAD + "group = HandlerGroup('clash')\ngroup.signal('taken', context=LoginEventContext)\n"
        "@group.on('user_logged_in')\ndef note(**context): pass\n",
        "",
        "failed",
        "SignalConflictError",
    ),
    "twin-one": (HEAD + "1 / 0", "entry = twin", "refused", "twin-one:twin and twin-two:twin"),
    "twin-two": (HEAD + "1 / 0", "entry = twin", "refused", "uninstall all but one"),
}  # fmt: skip


WEBHOOK = Path(__file__).parents[2] / "examples" / "webhook_plugin"

BUILD = """
import os, sys
from hatchling.build import build_wheel
wheels, *projects = sys.argv[1:]
for project in projects:
    os.chdir(project)
    build_wheel(wheels)
"""


def write_project(folder: Path, name: str, source: str, more: str) -> None:
    """Write a project of one module."""
    module = name.replace("-", "_")
    folder.mkdir()
    (folder / f"{module}.py").write_text(source)
    entry = "twin" if more.startswith("entry") else module
    (folder / "pyproject.toml").write_text(
        textwrap.dedent(f"""
        [build-system]
        requires = ["hatchling"]
        build-backend = "hatchling.build"
        [project]
        name = "{name}"
        version = "1.0"
        {"" if more.startswith("entry") else more}
        [project.entry-points."madcrow_events.handlers"]
        {entry} = "{module}:group"
        [tool.hatch.build.targets.wheel]
        include = ["{module}.py"]
        """)
    )


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, scripts: Path) -> Path:
    """Return the Python of an environment in which the plugins are installed."""
    folder = tmp_path_factory.mktemp("plugins")
    projects = [folder / name for name in PLUGINS]
    for project, (source, more, _, _) in zip(projects, PLUGINS.values(), strict=True):
        write_project(project, project.name, source, more)
    wheels = folder / "wheels"
    shutil.copytree(WEBHOOK, folder / "webhook")
    build = [sys.executable, "-c", BUILD, wheels, *projects, folder / "webhook"]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    python = scripts / Path(sys.executable).name
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", python, "install", "--no-deps"]
    subprocess.run([*pip, "--no-index", *wheels.iterdir()], check=True, timeout=120)
    return python


LOAD = """
import json, sys
audited = []
sys.addaudithook(
    lambda event, arguments: event == "madcrow_events.load_plugin"
    and audited.append((*arguments, arguments[1].partition(":")[0] in sys.modules))
)
from madcrow_events import emit_event, load_plugins, madcrow_signals
madcrow_signals.signal("taken")
reports = [
    (it.plugin.distribution, it.plugin.version, it.status, it.reason) for it in load_plugins()
]
assert emit_event("user_logged_in", user_id=1, email="a@example.com").results == ()
handlers = sorted({it.handler.__module__ for it in madcrow_signals.subscriptions})
imported = sorted(sys.modules.keys() & {"lacks", "newer", "twin_one", "twin_two"})
events = sorted(set(madcrow_signals) - set(madcrow_signals._built_in))
print(json.dumps([reports, handlers, events, imported, audited]))
"""


@pytest.mark.guarantee("P1")
@pytest.mark.guarantee("P3")
def test_every_broken_plugin_is_named_and_the_good_ones_load(python: Path) -> None:
    done = subprocess.run(
        [python, "-c", LOAD], check=True, capture_output=True, text=True, timeout=60
    )
    reports, handlers, events, imported, audited = json.loads(done.stdout)
    found = {name: (status, reason) for name, _, status, reason in reports}
    assert found.pop("madcrow-events-webhook") == ("loaded", "")
    assert found.keys() == PLUGINS.keys()
    for name, (_, _, status, part) in PLUGINS.items():
        assert found[name][0] == status, found[name]
        assert part in found[name][1]
    assert {version for name, version, *_ in reports if name in PLUGINS} == {"1.0"}
    assert handlers == ["good", "madcrow_events_webhook"]
    assert events == ["good.happened", "taken"]
    assert imported == []
    assert ["good:good", "good:group", False] in audited
    assert {name.partition(":")[0] for name, _, _ in audited} - {"madcrow-events-webhook"} == {
        name for name, status in found.items() if status[0] != "refused"
    }
    # One that lacks an event is tried again, when others have been loaded.
    once = [name for name, _, was_imported in audited if not was_imported]
    assert sorted(once) == sorted({name for name, _, _ in audited})


def test_the_webhook_plugin_passes_its_own_tests(python: Path) -> None:
    tests = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(
        tests, cwd=WEBHOOK, check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout
