"""1,000 forks while background handlers run: the parent's work stays the parent's (B2)."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

CHILDREN = 1000

pytestmark = [
    pytest.mark.soak,
    pytest.mark.guarantee("B2"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork"),
    pytest.mark.skipif(
        bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        reason="the child may hang in Python itself, see docs/reference/free-threading.md",
    ),
]

# In a process of its own: a coverage tracer's lock does not survive a fork.
PRELUDE = """
import asyncio, faulthandler, os, sys, threading, time, traceback
from collections import Counter
from madcrow_events import EventDispatcher, SignalRegistry

sys.setswitchinterval(1e-4)
children, path = int(sys.argv[1]), sys.argv[2]
parent = os.getpid()
notes = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
signals = SignalRegistry()
dispatcher = EventDispatcher(signals, queue_size=100, max_workers=3)

def note(kind, number):
    os.write(notes, f"{os.getpid()} {kind} {number}\\n".encode())

def plain(number):
    time.sleep(0.0002)
    note("plain", number)

async def coroutine(number):
    await asyncio.sleep(0.0002)
    note("async", number)

def noted():
    with open(path) as lines:
        return Counter(tuple(line.split()) for line in lines)

def once_by(process, numbers):
    return Counter((str(process), kind, str(n)) for kind in ("plain", "async") for n in numbers)

signals.signal("work").subscribe(plain, background=True)
signals["work"].subscribe(coroutine, background=True)

async def live_async():
    await dispatcher.emit_async("work", number=0)
    assert await dispatcher.drain_async(10)

def live(inherited):
    assert not inherited.pending and inherited.wait(0), "the parent's work is pending"
    assert threading.active_count() == 1, "there is a thread"
    assert dispatcher.drain(0), "there is work"
    mine = [dispatcher.emit("work", number=os.getpid()) for _ in range(3)]
    assert dispatcher.drain(10)
    assert all(len(emission.results) == 2 for emission in mine)
    asyncio.run(live_async())

def fork(inherited):
    process = os.fork()
    if process:
        return process
    code = 1
    faulthandler.dump_traceback_later(25, exit=True)
    try:
        live(inherited)
        code = 0
    except BaseException:
        traceback.print_exc()
        faulthandler.dump_traceback()
    finally:
        os._exit(code)

def outcome(process):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return "failed" if status else "well"
        time.sleep(0.0005)
    os.kill(process, 9)
    os.waitpid(process, 0)
    return "hung"

"""

FORKING_BESIDE = """
numbers, outcomes, stop = [], Counter(), threading.Event()

def emit_always():
    while not stop.is_set():
        with turn:
            number = len(numbers)
            numbers.append(number)
        newest[0] = dispatcher.emit("work", number=number)

turn, newest = threading.Lock(), [dispatcher.emit("work", number="first")]
emitters = [threading.Thread(target=emit_always) for _ in range(2)]
for thread in emitters:
    thread.start()
processes = []
for _ in range(children):
    process = fork(newest[0])
    processes.append(process)
    outcomes[outcome(process)] += 1
stop.set()
for thread in emitters:
    thread.join()
assert dispatcher.drain(30)
expected = once_by(parent, [*numbers, "first"])
for process in processes:
    expected += once_by(process, [process] * 3 + [0])
print(dict(outcomes), "right" if noted() == expected else noted() - expected or expected - noted())
print(len(numbers), "emissions of the parent", file=sys.stderr)
"""

# Whoever forks in a handler has one thread less in the child: the one that is at work.
FORKING_INSIDE = """
outcomes, processes, emissions = Counter(), [], []

def forking():
    process = fork(emissions[0])
    processes.append(process)
    outcomes[outcome(process)] += 1

async def forking_async():
    forking()

handler = forking if sys.argv[3] == "plain" else forking_async
signals.signal("fork").subscribe(handler, background=True)
for number in range(children):
    emissions[:] = [dispatcher.emit("work", number=number)]
    dispatcher.emit("fork").wait()
assert dispatcher.drain(30)
expected = once_by(parent, range(children))
for process in processes:
    expected += once_by(process, [process] * 3 + [0])
print(dict(outcomes), "right" if noted() == expected else noted() - expected or expected - noted())
"""

# Whoever waits holds a lock for a moment before it sleeps, which nobody releases in the child.
FORKING_WHILE_ANOTHER_WAITS = """
import types
from madcrow_events import _waiters as waiters
free = threading.Event()
signals.signal("held").subscribe(lambda: free.wait(60), background=True)
emission = dispatcher.emit("held")
time.sleep(0.1)
forked = []

class Lock:
    def __init__(self):
        self.real = threading.Lock()
        self.release = self.real.release

    def acquire(self, timeout=-1):
        if timeout > 0 and not forked:  # it begins to wait
            forked.append(True)
            print(outcome(fork(emission)))
            free.set()
        return self.real.acquire(timeout=timeout)

waiters.threading = types.SimpleNamespace(Lock=Lock, TIMEOUT_MAX=threading.TIMEOUT_MAX)
assert emission.wait(30)
"""


def run(script: str, children: int, path: Path, *arguments: str) -> str:
    environment = {key: value for key, value in os.environ.items() if "COV" not in key}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PRELUDE + script, str(children), path, *arguments],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env=environment,
    )
    print(ran.stderr[-6000:])
    return ran.stdout


def test_children_forked_beside_running_work_are_well(scale: float, tmp_path: Path) -> None:
    """1,000 in full; each emits and drains, and does nothing of its parent's."""
    children = int(CHILDREN * scale)
    assert run(FORKING_BESIDE, children, tmp_path / "notes") == f"{{'well': {children}}} right\n"


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_children_forked_by_a_background_handler_are_well(
    scale: float, tmp_path: Path, kind: str
) -> None:
    children = int(CHILDREN / 5 * scale)
    outcome = run(FORKING_INSIDE, children, tmp_path / "notes", kind)
    assert outcome == f"{{'well': {children}}} right\n"


def test_a_child_forked_while_somebody_waits_is_well(tmp_path: Path) -> None:
    assert run(FORKING_WHILE_ANOTHER_WAITS, 1, tmp_path / "notes") == "well\n"
