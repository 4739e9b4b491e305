"""Children forked while other threads emit and subscribe never hang (section 6)."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig

import pytest

CHILDREN = 1000

# In a process of its own: a coverage tracer's lock does not survive a fork.
FORKING = """
import os, sys, threading, time
from madcrow_events import EventDispatcher, SignalRegistry

signals = SignalRegistry()
signal = signals.signal("thing_happened")
dispatcher = EventDispatcher(signals)
stop = threading.Event()
sys.setswitchinterval(1e-5)

def emit_and_subscribe():
    while not stop.is_set():
        with signal.subscribe(lambda: None), signals.subscribe("*", lambda: None):
            dispatcher.emit(signal)

def declare():
    number = 0
    while not stop.is_set():
        number = (number + 1) % 100
        signals.signal(f"event_{number}")
        signals.pop(f"event_{number}", None)

threads = [threading.Thread(target=work) for work in (emit_and_subscribe,) * 3 + (declare,)]
for thread in threads:
    thread.start()

def child():
    signals.signal("of_the_child").subscribe(lambda: None)
    signals.subscribe("*", lambda: None)
    return 0 if dispatcher.emit("of_the_child").ok and dispatcher.emit(signal).ok else 1

hung = failed = 0
for _ in range(int(sys.argv[1])):
    process = os.fork()
    if process == 0:
        os._exit(child())
    deadline = time.monotonic() + 30
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            failed += os.waitstatus_to_exitcode(status) != 0
            break
        if time.monotonic() > deadline:
            os.kill(process, 9)
            os.waitpid(process, 0)
            hung += 1
            break
        time.sleep(0.0005)
stop.set()
for thread in threads:
    thread.join()
print(f"{hung} hung, {failed} failed")
"""


@pytest.mark.soak
@pytest.mark.guarantee("N6")
@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="the child may hang in Python itself, see docs/reference/free-threading.md",
)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_no_forked_child_hangs_or_fails(scale: float) -> None:
    """1,000 children in full."""
    environment = {key: value for key, value in os.environ.items() if "COV" not in key}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING, str(int(CHILDREN * scale))],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=environment,
    )
    assert ran.stdout == "0 hung, 0 failed\n", ran.stdout + ran.stderr
