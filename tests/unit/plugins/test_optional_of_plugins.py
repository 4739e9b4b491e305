"""Plugins that wait for an event which may never be declared (H5)."""

from __future__ import annotations

import pytest

from madcrow_events import load_plugins, madcrow_signals, unload_plugin
from support.explaining import left_out
from support.plugins import Install

pytestmark = pytest.mark.guarantee("H5")

PLUGIN = """
    from madcrow_events import HandlerGroup

    group = HandlerGroup("bells")


    @group.on("order_placed", optional=True)
    def ring(**context): ...
"""


@pytest.mark.guarantee("P1")
def test_a_plugin_is_loaded_without_the_event_and_unloaded_with_it(install: Install) -> None:
    install("acme-bells", PLUGIN)
    (report,) = load_plugins()
    assert (report.status, report.handlers) == ("loaded", ("order_placed",))
    assert load_plugins() == [report]

    placed = madcrow_signals.signal("order_placed")
    assert [it.origin for it in madcrow_signals.explain(placed).called] == [
        "plugin acme-bells:acme_bells"
    ]

    unload_plugin("acme-bells")
    assert left_out(madcrow_signals.explain(placed)) == {"ring": "unloaded"}
