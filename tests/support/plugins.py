"""Plugins to install, and how they report."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

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


def install_plugin(
    site: Path,
    name: str,
    source: str,
    *,
    entry_point: str = "",
    value: str = "",
    requires: str = "",
) -> None:
    """Write a distribution with one plugin into a folder on the path of imports.

    Args:
        site: the folder.
        name: the name of the distribution, and of its module.
        source: the source of the module.
        entry_point: the name of the entry point, if that is not the module's.
        value: what the entry point names, if that is not the module's `group`.
        requires: what it requires, one a line.
    """
    module = name.replace("-", "_")
    (site / f"{module}.py").write_text(textwrap.dedent(source))
    folder = site / f"{module}-1.2.dist-info"
    folder.mkdir()
    needs = "".join(f"Requires-Dist: {it}\n" for it in requires.splitlines())
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n{needs}")
    (folder / "entry_points.txt").write_text(
        f"[madcrow_events.handlers]\n{entry_point or module} = {value or f'{module}:group'}\n"
    )
