"""The test kit: record emissions, fake events, try a plugin. It does not need pytest."""

from madcrow_events.testing._plugin_check import assert_plugin_works
from madcrow_events.testing.recorder import Recorder, fake_events, record_events

__all__ = ["Recorder", "assert_plugin_works", "fake_events", "record_events"]
