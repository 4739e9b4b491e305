"""The test kit: record what is emitted, call no handler, try a plugin; needs no pytest."""

from madcrow_events.testing._plugin_check import assert_plugin_works
from madcrow_events.testing.recorder import Recorder, fake_events, record_events

__all__ = ["Recorder", "assert_plugin_works", "fake_events", "record_events"]
