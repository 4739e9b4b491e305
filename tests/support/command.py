"""Running the command on small applications, in this process or in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

import pytest

pytest.importorskip("rich")
pytest.importorskip("typer")

from madcrow_events.cli._running import status_of

__all__ = ["SHOP", "Command", "Ended", "command", "in_a_process"]

SHOP = """
    from typing import Annotated

    from pydantic import Field

    from madcrow_events import BaseEventContext, Batch, madcrow_signals, on_event


    @madcrow_signals.event(key="order_id", formerly="order_made")
    class OrderPlaced(BaseEventContext):
        '''A customer placed an order.'''

        order_id: int
        total: float = Field(gt=0, description="In euros")
        tags: list[str] = []


    @madcrow_signals.event
    class OrderPaid(BaseEventContext):
        order_id: int


    madcrow_signals.signal("stock_low", "A shelf is nearly empty.")


    @on_event(OrderPlaced, priority=5, id="count")
    def count_order(order_id):
        return order_id + 1


    @on_event(OrderPlaced, when=lambda fields: fields["total"] > 100, background=True)
    def thank_for_big_order(context: OrderPlaced):
        raise RuntimeError("no luck")


    @on_event(OrderPlaced, timeout=5)
    async def send_mail(context: OrderPlaced):
        return {"sent": True}


    @on_event("order_*", batch=Batch())
    def write_audit(contexts):
        return object()
"""


class Ended(NamedTuple):
    """What came of a command."""

    status: int
    out: str
    err: str

    @property
    def record(self) -> Any:
        """What it has written as JSON."""
        return json.loads(self.out)


class Command:
    """Runs the command on an application, and forgets the application when the test has ended.

    Args:
        folder: where the modules of the application are written.
        run: runs the command in this process.
    """

    def __init__(self, folder: Path, run: Callable[..., Ended]) -> None:
        self.folder = folder
        self._run = run

    def write(self, **modules: str) -> Command:
        """Write modules of the application."""
        for name, source in modules.items():
            (self.folder / f"{name}.py").write_text(dedent(source), encoding="utf-8")
        return self

    def __call__(self, *arguments: str, app: str | None = None) -> Ended:
        """Run the command, with an application of this folder or without any."""
        named = () if app is None else ("--app", app, "--app-dir", str(self.folder))
        return self._run(*arguments, *named)


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Return the command, in this process, where no terminal is."""

    def run(*arguments: str) -> Ended:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", sys.stdout)
            status = status_of(arguments)
        return Ended(status, *capsys.readouterr())

    monkeypatch.setenv("MADCROW_EVENTS_INSPECT", "0")
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = {*sys.modules}
    yield Command(tmp_path, run)
    for name, module in [*sys.modules.items()]:
        if name not in before and str(tmp_path) in str(getattr(module, "__file__", None)):
            del sys.modules[name]


def in_a_process(
    *arguments: str,
    folder: Path | None = None,
    program: tuple[str, ...] = ("-m", "madcrow_events"),
    **options: Any,
) -> Ended:
    """Run the command in a process of its own, whose output goes to pipes.

    Args:
        arguments: the arguments of the command.
        folder: the working directory.
        program: the arguments of Python.
        options: for `subprocess.run`.
    """
    environment = {**os.environ, **options.pop("env", {})}
    done = subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
        **options,
    )
    return Ended(done.returncode, done.stdout, done.stderr)
