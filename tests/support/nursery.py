"""Processes that start at once, may be killed or paused at any moment, and outlive no test.

One process imports what is needed, and forks another one for each that is asked for. It is the
parent of all of them, so that it knows until when an id is theirs. It ends them when its input
ends, however the test has ended; and after some minutes each ends by itself.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import madcrow_events

_LONGEST = 900
"""Seconds after which a process ends by itself."""


class Nursery:
    """Starts processes, each of which calls a function of a module.

    Args:
        module: the name of the module; its `warm_up` is called before there are any processes.
    """

    def __init__(self, module: str) -> None:
        paths = (str(Path(__file__).parents[1]), str(Path(madcrow_events.__file__).parents[1]))
        coverage = ("COV", "PYTHONPATH")
        env = {name: it for name, it in os.environ.items() if not name.startswith(coverage)}
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "support.nursery", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**env, "PYTHONPATH": os.pathsep.join(paths)},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._parent.stdin is not None
        self._parent.stdin.close()
        self._parent.wait(60)
        assert self._parent.stdout is not None
        self._parent.stdout.close()

    def _ask(self, *words: Any) -> Any:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(words) + "\n")
        self._parent.stdin.flush()
        return json.loads(self._parent.stdout.readline())

    def start(self, function: str, *arguments: Any) -> int:
        """Start a process, and return its id.

        Args:
            function: the name of a function of the module.
            arguments: what it is called with; JSON carries them.
        """
        return int(self._ask("start", function, *arguments))

    def kill(self, process: int) -> int:
        """Kill a process by SIGKILL, and return the code with which it ended.

        That is -9, or another one if it had ended already.
        """
        self._ask("signal", process, signal.SIGKILL)
        return int(self._ask("wait", process, 60))

    def pause(self, process: int) -> None:
        """Stop a process by SIGSTOP."""
        self._ask("signal", process, signal.SIGSTOP)

    def resume(self, process: int) -> None:
        """Let a process go on."""
        self._ask("signal", process, signal.SIGCONT)

    def end(self, process: int) -> int | None:
        """Ask a process to end by SIGTERM; return its code, or None if it has not ended."""
        self._ask("signal", process, signal.SIGTERM)
        return self.wait(process)

    def wait(self, process: int, seconds: float = 60) -> int | None:
        """Wait for the end of a process; return its code, or None if it has not ended."""
        code = self._ask("wait", process, seconds)
        return None if code is None else int(code)


class _Parent:
    """What runs in the process that starts the others."""

    def __init__(self, module: str) -> None:
        self._module = importlib.import_module(module)
        self._module.warm_up()
        self._alive: set[int] = set()
        self._codes: dict[int, int] = {}

    def serve(self) -> None:
        try:
            while line := sys.stdin.readline():
                word, *arguments = json.loads(line)
                answer = getattr(self, word)(*arguments)
                print(json.dumps(answer), flush=True)
        finally:
            for process in self._alive - self._codes.keys():
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)

    def start(self, function: str, *arguments: Any) -> int:
        process = os.fork()
        if process == 0:
            self._live(function, arguments)
        self._alive.add(process)
        self._codes.pop(process, None)  # of an earlier one with the same id
        return process

    def _live(self, function: str, arguments: tuple[Any, ...]) -> None:
        signal.alarm(_LONGEST)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        code = 1
        try:
            getattr(self._module, function)(*arguments)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def signal(self, process: int, number: int) -> None:
        self._reap(process)
        if process not in self._codes:
            os.kill(process, number)

    def wait(self, process: int, seconds: float) -> int | None:
        end = time.monotonic() + seconds
        while not self._reap(process) and time.monotonic() < end:
            time.sleep(0.001)
        return self._codes.get(process)

    def _reap(self, process: int) -> bool:
        if process in self._codes:
            return True
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            self._codes[process] = os.waitstatus_to_exitcode(status)
        return bool(ended)


if __name__ == "__main__":
    _Parent(sys.argv[1]).serve()
