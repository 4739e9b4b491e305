"""A plugin stands in explanations: as the origin of its handlers, and as why they have ended."""

from __future__ import annotations

import pytest

from madcrow_events import HandlerGroup, load_plugins, madcrow_signals, unload_plugin
from support.explaining import handler, short
from support.plugins import Install

pytestmark = pytest.mark.guarantee("X1")

RINGS = """
    from madcrow_events import HandlerGroup

    group = HandlerGroup("bells")


    @group.on("thing_happened")
    def ring(**context): ...
"""


def test_a_plugin_is_named_as_the_origin_and_as_the_reason(install: Install) -> None:
    signal = madcrow_signals.signal("thing_happened")
    own = HandlerGroup("own")
    own.on("thing_happened")(handler())
    own.register()
    install("acme-bells", RINGS)
    load_plugins()

    explanation = madcrow_signals.explain(signal)
    assert [it.origin for it in explanation.called] == ["group own", "plugin acme-bells:acme_bells"]

    unload_plugin("acme-bells")

    (entry,) = madcrow_signals.explain(signal).left_out
    assert (short(entry.name), entry.detail) == ("ring", "its plugin was unloaded")
