"""Plugins to install, and how they report."""

from __future__ import annotations

from collections.abc import Callable

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
