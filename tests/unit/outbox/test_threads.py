"""The threads that call handlers: which runs they take together."""

from __future__ import annotations

from types import SimpleNamespace

from madcrow_events.outbox._calling import Ended, Run
from madcrow_events.outbox._threads import HandlerThreads
from support.outboxes import wait_for


def test_a_run_that_is_withdrawn_meanwhile_is_not_carried_with_others():
    """Another worker has it by now; the runs behind it are carried."""
    handler = SimpleNamespace(carry=list)
    first, withdrawn, last = (Run(handler, 1, it, [], 0.0) for it in range(3))
    called = []

    def carry(runs):
        called.append([*runs])
        return [Ended(it, None) for it in runs]

    threads = HandlerThreads(1, carry, lambda: None)
    threads.give([first, withdrawn, last])
    assert threads._tasks[withdrawn].may_start()  # as `withdraw` does, between two steps
    threads.start()
    wait_for(lambda: called)
    threads.stop()
    for it in threads._threads:
        it.join()
    assert called == [[first, last]]
    assert [it.run for it in threads.take()] == [first, last]
