"""A shop with an outbox, for the command, and emissions to it from another program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from sqlalchemy import create_engine

from madcrow_events import SignalRegistry
from madcrow_events.outbox import Outbox

__all__ = ["DURABLE_SHOP", "commit_in", "write_shop"]

DURABLE_SHOP = """
    import asyncio
    import time

    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session

    from madcrow_events import BaseEventContext, madcrow_signals
    from madcrow_events.outbox import GiveUp, Outbox, Worker


    @madcrow_signals.event(key="customer_id")
    class OrderPlaced(BaseEventContext):
        '''A customer placed an order.'''

        order_id: int
        customer_id: int = 1


    @madcrow_signals.event
    class OrderLost(BaseEventContext):
        order_id: int


    engine = create_engine("sqlite:///FOLDER/shop.db")
    outbox = Outbox("/shop")
    worker = Worker(outbox, engine, concurrency=3, lease=2, poll=0.1)


    @outbox.on(OrderPlaced, id="book", on_dead="continue")
    def book(context: OrderPlaced) -> None:
        say(f"booked {context.order_id}")


    @outbox.on(OrderPlaced, id="mail")
    def send_mail(context: OrderPlaced) -> None:
        if context.order_id == 13:
            raise GiveUp("no such address")
        if context.order_id > 100:
            say("slow")
            time.sleep(context.order_id / 100)
            say("mailed")


    @outbox.on(OrderPlaced, id="wait")
    async def wait(context: OrderPlaced) -> None:
        if context.order_id == 3000:
            say("waiting")
            await asyncio.sleep(20)


    def say(line):
        print(f"{line}\\n", end="", flush=True)  # at once, beside another thread


    def commit(*contexts):
        with Session(engine) as session:
            for context in contexts:
                outbox.emit(session, context)
            session.commit()
        engine.dispose()
"""
"""The source of a module, in which FOLDER stands for a folder."""


def write_shop(folder: Path) -> None:
    """Write the shop to a folder, with the tables of its outbox.

    Args:
        folder: the folder.
    """
    source = dedent(DURABLE_SHOP).replace("FOLDER", folder.as_posix())
    (folder / "durable_shop.py").write_text(source, encoding="utf-8")
    engine = create_engine(f"sqlite:///{folder.as_posix()}/shop.db")
    Outbox("/shop", signals=SignalRegistry()).metadata.create_all(engine)
    engine.dispose()


def commit_in(folder: Path, contexts: str) -> None:
    """Write the shop to a folder, and emit events with a transaction of its own process.

    Args:
        folder: the folder.
        contexts: the arguments of `commit`, as code.
    """
    write_shop(folder)
    code = f"from durable_shop import *\ncommit({contexts})"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, timeout=60)
