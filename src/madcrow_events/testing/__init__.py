"""The test kit: record emissions, fake events, drain an outbox, try a plugin.

It does not need pytest.
"""

from madcrow_events.testing._draining import DrainReport, drain_outbox
from madcrow_events.testing._plugin_check import assert_plugin_works
from madcrow_events.testing.recorder import Recorder, fake_events, record_events

__all__ = [
    "DrainReport",
    "Recorder",
    "assert_plugin_works",
    "drain_outbox",
    "fake_events",
    "record_events",
]
