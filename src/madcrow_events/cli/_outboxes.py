"""Finding the outbox of an application, and its database."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from madcrow_events._text import printable, text_of, type_name
from madcrow_events.cli._application import Named, load_named
from madcrow_events.cli._errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from madcrow_events.bridge import Bridge
    from madcrow_events.outbox import Outbox, Worker

__all__ = [
    "DATABASE",
    "FoundOutbox",
    "bridge_without_outbox",
    "find_outbox",
    "named_application",
    "one_of",
    "outbox_in",
    "with_database",
]

DATABASE: Final = "MADCROW_EVENTS_DATABASE"
"""The variable with the URL of the database of an outbox, where no worker has an engine."""

T = TypeVar("T")


class FoundOutbox(NamedTuple):
    """An outbox, and where its tables are.

    Attributes:
        outbox: the outbox.
        worker: the worker of the application, or None if it has none.
        engine: the engine of the database, or None if nobody has named one.
    """

    outbox: Outbox
    worker: Worker | None
    engine: Engine | AsyncEngine | None

    def needed_engine(self) -> Engine | AsyncEngine:
        """Return the engine.

        Raises:
            CommandError: there is none.
        """
        if self.engine is None:
            raise CommandError(
                "an Outbox alone has no database: name a Worker, as in --app shop.events:worker, "
                f"or the database, as in --database sqlite:///shop.db or by {DATABASE}"
            )
        return self.engine


def find_outbox(
    app: str | None, app_dir: str | None, database: str | None, *, is_inspected: bool = False
) -> FoundOutbox:
    """Import an application, and return its outbox.

    Args:
        app: the module, and after a colon the attribute that is its worker or its outbox, or the
            function that makes the application. Without such an attribute, the module must have
            one worker, or one outbox.
        app_dir: a folder to put first on the path of imports, or None.
        database: the URL of the database; None for that of the worker, or of the environment.
        is_inspected: whether the application may leave its connections.

    Raises:
        CommandError: the application, its outbox or the database cannot be found, or SQLAlchemy is
            not installed.
        ApplicationError: the application raised an exception.
    """
    return outbox_in(named_application(app, app_dir, is_inspected=is_inspected), database)


def named_application(app: str | None, app_dir: str | None, *, is_inspected: bool = False) -> Named:
    """Import an application; the arguments and errors are those of `find_outbox`."""
    try:
        import madcrow_events.outbox  # noqa: F401  # which needs SQLAlchemy
    except ModuleNotFoundError as error:
        raise CommandError(
            f"{error.name} is missing: pip install 'madcrow-events[outbox]'"
        ) from error
    if app is None:
        raise CommandError("name the worker of your application, as in --app shop.events:worker")
    return load_named(app, app_dir, is_inspected=is_inspected)


def outbox_in(named: Named, database: str | None) -> FoundOutbox:
    """Return the outbox of an application; the errors are those of `find_outbox`."""
    from madcrow_events.bridge import Bridge
    from madcrow_events.outbox import Outbox, Worker

    is_outbox = issubclass(type(named.thing), Outbox)
    worker = None if is_outbox else one_of(named, Worker)
    if worker is not None:
        outbox: Outbox | None = worker.outbox
    elif issubclass(type(named.thing), Bridge):
        outbox = named.thing.outbox
    else:
        outbox = one_of(named, Outbox)
    if outbox is None:
        raise CommandError(
            f"{named.name} has no Worker and no Outbox: name the module that has one, as in --app "
            "shop.events:worker"
        )
    return FoundOutbox(outbox, worker, _engine(database, worker))


def bridge_without_outbox(named: Named) -> Bridge | None:
    """Return the bridge that `--app` means, if it has no outbox; else None.

    Raises:
        CommandError: there are several.
    """
    from madcrow_events.bridge import Bridge
    from madcrow_events.outbox import Outbox, Worker

    if not issubclass(type(named.thing), Bridge) and any(
        one_of(named, it) is not None for it in (Worker, Outbox)
    ):
        return None
    bridge = one_of(named, Bridge)
    return bridge if bridge is not None and bridge.outbox is None else None


def one_of(named: Named, class_: type[T]) -> T | None:
    """Return the one object of a class that `--app` may mean; None if there is none.

    Raises:
        CommandError: there are several.
    """
    # Not `isinstance`, which would ask proxies what they stand for.
    if issubclass(type(named.thing), class_):
        return named.thing  # type: ignore[no-any-return]  # as was asked
    found = {
        id(it): (attribute, it)
        for attribute, it in vars(named.module).items()
        if issubclass(type(it), class_)
    }
    if len(found) > 1:
        names = ", ".join(sorted(attribute for attribute, _ in found.values()))
        first = min(attribute for attribute, _ in found.values())
        raise CommandError(
            f"{named.name} has several of {class_.__name__}: {names}: name one, as in --app "
            f"{named.name}:{first}"
        )
    return next((it for _, it in found.values()), None)


def _engine(database: str | None, worker: Worker | None) -> Any:
    if database is None and worker is not None:
        return worker.engine
    url = database or os.environ.get(DATABASE)
    return None if not url else _engine_for(url)


def _engine_for(database: str) -> Any:
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        url = make_url(database)
        is_async = url.get_dialect().is_async
    except (ArgumentError, NoSuchModuleError, ValueError):  # whose text may quote a password
        raise CommandError(
            "the database is no URL that SQLAlchemy knows: write it as in "
            "postgresql+psycopg://user@host/shop or sqlite:///shop.db"
        ) from None
    try:
        if is_async:
            from sqlalchemy.ext.asyncio import create_async_engine

            return create_async_engine(url, hide_parameters=True)
        return create_engine(url, hide_parameters=True)
    except ModuleNotFoundError as error:
        raise CommandError(
            f"{error.name} is missing, which the URL of the database names: install it, or write "
            "another driver, as in postgresql+psycopg://"
        ) from error


def with_database(engine: Engine | AsyncEngine, act: Callable[[], T]) -> T:
    """Return what a function returns that uses a database.

    Args:
        engine: the engine.
        act: the function.

    Raises:
        CommandError: the database cannot be used.
    """
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return act()
    except (SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        reason = next(iter(text_of(cause).splitlines()), "")
        raise CommandError(
            f"the database {_place_of(engine)} cannot be used: {type_name(type(cause))}"
            f"{f': {printable(reason)}' if reason else ''}"
        ) from error


def _place_of(engine: Engine | AsyncEngine) -> str:
    """Return where a database is, without the user and what is secret."""
    url = engine.url
    host = f"{url.host or ''}{f':{url.port}' if url.port else ''}"
    return printable(f"{url.get_backend_name()}://{host}/{url.database or ''}")
