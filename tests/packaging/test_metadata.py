"""What is installed says what it is, and holds the package and nothing else."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import madcrow_events

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "madcrow_events"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of this checkout."""
    if not SOURCE.exists():
        pytest.skip("the source folder is out of reach: an installed wheel is tested")
    for module in ("pip", "hatchling"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"building the wheel needs {module}, which is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(ROOT)], check=True, timeout=120)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def contents(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_version_is_that_of_the_installed_distribution() -> None:
    assert madcrow_events.__version__ == importlib.metadata.version("madcrow-events")


def test_the_package_needs_three_others_and_nothing_else() -> None:
    required = importlib.metadata.requires("madcrow-events") or []

    names = {
        re.split(r"[^\w-]", line, maxsplit=1)[0] for line in required if "extra ==" not in line
    }

    assert names == {"blinker", "pydantic", "typing-extensions"}


def test_the_installed_package_tells_type_checkers_that_it_is_typed() -> None:
    assert (Path(madcrow_events.__file__).parent / "py.typed").is_file()


@pytest.mark.once
def test_the_wheel_has_the_version_of_the_package_and_suits_every_platform(wheel: Path) -> None:
    assert wheel.name == f"madcrow_events-{madcrow_events.__version__}-py3-none-any.whl"


@pytest.mark.once
def test_the_wheel_holds_every_file_of_the_package(contents: list[str]) -> None:
    files = {
        path.relative_to(SOURCE.parent).as_posix()
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert "madcrow_events/py.typed" in files
    assert {name for name in contents if name.startswith("madcrow_events/")} == files


@pytest.mark.once
def test_the_wheel_holds_nothing_but_the_two_packages_and_the_metadata(
    contents: list[str],
) -> None:
    metadata = f"madcrow_events-{madcrow_events.__version__}.dist-info/"

    outside = [name for name in contents if not name.startswith(("madcrow_events/", metadata))]

    assert outside == ["pytest_madcrow_events.py"]
    assert f"{metadata}licenses/LICENSE" in contents
