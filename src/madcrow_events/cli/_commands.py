"""The subcommands, as users type them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import Annotated, Final

import typer

from madcrow_events import __version__
from madcrow_events._text import printable
from madcrow_events.cli._application import Application, bridge_in, load_application
from madcrow_events.cli._completion import complete_event
from madcrow_events.cli._context import (
    Payload,
    payload_of,
    read_pairs,
)
from madcrow_events.cli._errors import FOUND, CommandError
from madcrow_events.cli._explaining import ExplainedRecord, explained_record
from madcrow_events.cli._messages import say
from madcrow_events.cli._output import Output
from madcrow_events.cli._records import event_records, found_event, handlers_records, matching
from madcrow_events.cli._theirs import theirs

__all__ = ["COMMAND"]

COMMAND: Final = typer.Typer(
    epilog="The status is 0 if all is well, 1 if something is wrong with the events, 2 if an "
    "argument is wrong, and 3 if the application raises an exception. "
    "Example: madcrow-events events --app shop.events --app-dir .",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
PLUGINS: Final = typer.Typer(help="List the installed plugins.", rich_markup_mode=None)
COMMAND.add_typer(PLUGINS, name="plugins")
OUTBOX: Final = typer.Typer(
    help="Look into the outbox of an application.", no_args_is_help=True, rich_markup_mode=None
)


def _say_version(is_asked: bool) -> None:
    if is_asked:
        print(f"madcrow-events {__version__}")  # noqa: T201  # a command prints
        raise typer.Exit


@COMMAND.callback()
def _options(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", help="Write the version.", callback=_say_version, is_eager=True),
    ] = False,
) -> None:
    """Show the events of an application, who listens to them, and what is wrong."""


Pattern = Annotated[
    str,
    typer.Argument(
        metavar="PATTERN",
        help="The name of an event, or a pattern such as 'order_*'.",
        show_default=False,
        autocompletion=complete_event,
    ),
]
Event = Annotated[
    str, typer.Argument(metavar="EVENT", help="The name.", autocompletion=complete_event)
]
Pairs = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Fields of the context, such as order_id=7."),
]
App = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE[:ATTRIBUTE]",
        help="Import this application first. The attribute may be its registry, its dispatcher, "
        "its bridge, or a function that makes the application.",
    ),
]
AppDir = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="Import the application from this folder, such as '.'."),
]
Plugins = Annotated[bool, typer.Option("--plugins", help="Load the installed plugins, too.")]
Json = Annotated[bool, typer.Option("--json", help="Write JSON.")]

OutboxApp = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE[:ATTRIBUTE]",
        help="Import this application first. The attribute is its worker, its outbox or its "
        "bridge; without one, the module has one worker, or one outbox.",
    ),
]
Database = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The database, instead of that of the worker; MADCROW_EVENTS_DATABASE names it where "
        "there is no worker.",
    ),
]


class Format(StrEnum):
    """The documents that `schema` writes."""

    JSON_SCHEMA = "json-schema"
    ASYNCAPI = "asyncapi"


class Dialect(StrEnum):
    """The databases for which `outbox ddl` writes tables."""

    POSTGRESQL = "postgresql"
    SQLITE = "sqlite"


def _example(arguments: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that makes a function a subcommand, with an example in its help."""
    decorate: Callable[..., Callable[..., None]] = COMMAND.command(
        epilog=f"Example: madcrow-events {arguments}"
    )
    return decorate


@_example("events 'order_*' --app shop.events")
def events(
    pattern: Pattern = "*",
    app: App = None,
    app_dir: AppDir = None,
    plugins: Plugins = False,
    as_json: Json = False,
) -> None:
    """List the events, and what each of them means.

    Each has its number of handlers, its model and its ordering key.
    """
    output = Output()
    found = load_application(app, app_dir, with_plugins=plugins)
    output.show("events", event_records(found.signals, pattern), as_json=as_json)
    _hint(found)


@_example("handlers order_placed --app shop.events")
def handlers(
    pattern: Pattern = "*",
    app: App = None,
    app_dir: AppDir = None,
    plugins: Plugins = False,
    as_json: Json = False,
) -> None:
    """List the handlers of each event, as they are called.

    They are in the order in which they are called or started: "inline" by the emitter; "awaited"
    by emit_async, and started by emit; in the "background", later; or with a "batch", later, with
    a list of contexts.
    """
    output = Output()
    found = load_application(app, app_dir, with_plugins=plugins)
    output.show("handlers", handlers_records(found.signals, pattern), as_json=as_json)
    _hint(found)


@_example("show order_placed --app shop.events")
def show(
    event: Event,
    app: App = None,
    app_dir: AppDir = None,
    plugins: Plugins = False,
    as_json: Json = False,
) -> None:
    """Show one event: fields, an example, handlers."""
    from madcrow_events.cli._showing import shown_record

    output = Output()
    found = load_application(app, app_dir, with_plugins=plugins)
    signal = found_event(found.signals, event)
    record = theirs(f"showing {signal.name}", partial(shown_record, found.signals, signal))
    output.show("show", record, as_json=as_json)


@_example("explain order_placed total=12.5 --app shop.events")
def explain(
    event: Event,
    pairs: Pairs = None,
    app: App = None,
    app_dir: AppDir = None,
    plugins: Plugins = False,
    as_json: Json = False,
) -> None:
    """Say who would be called, who would not, and why.

    No handler is called. Without fields, no condition is asked. With all required fields, this
    explains an emission of a context; with some of them, an emission of keywords.
    """
    output = Output()
    fields = read_pairs(pairs or ())
    found = load_application(app, app_dir, with_plugins=plugins)
    signal = found_event(found.signals, event)
    payload = payload_of(signal, fields, may_lack=True) if fields else Payload(None, {})
    output.show("explain", explained_record(found.signals, signal, payload), as_json=as_json)


@PLUGINS.callback(invoke_without_command=True)
def plugins(context: typer.Context, as_json: Json = False) -> None:
    """List the installed plugins."""
    if context.invoked_subcommand is None:
        from madcrow_events.cli._plugins import plugin_records

        Output().show("plugins", plugin_records(), as_json=as_json)


@PLUGINS.command()
def check(as_json: Json = False) -> None:
    """Try to load each of them, in its own process.

    The status is 1 if a plugin would not load.
    """
    from madcrow_events.cli._plugins import checked_plugins

    output = Output()
    record = checked_plugins()
    output.show("check", record, as_json=as_json)
    for warning in record["warnings"]:
        say(f"madcrow-events: {warning}")
    if record["warnings"] or any(it["status"] != "loaded" for it in record["plugins"]):
        raise typer.Exit(FOUND)


@_example("doctor --app shop.events")
def doctor(
    app: App = None,
    app_dir: AppDir = None,
    plugins: Plugins = False,
    as_json: Json = False,
) -> None:
    """Find what is wrong with the events of an application; the status is 1 if anything is.

    It looks for events that nobody handles or declares, for patterns and classes that match
    nothing, for handlers that are subscribed again and again, for names that differ by a letter,
    for slow imports, and for old names. If the application calls load_plugins, or with --plugins,
    it also looks for plugins that would not load.
    """
    from madcrow_events.cli._doctor import examine

    if app is None:
        raise CommandError("name the application to examine, as in --app shop.events")
    output = Output()
    record = examine(app, app_dir, with_plugins=plugins)
    output.show("doctor", record, as_json=as_json)
    if record["findings"]:
        raise typer.Exit(FOUND)


@_example("schema --format asyncapi --app shop.events")
def schema(
    pattern: Pattern = "*",
    format_: Annotated[
        Format, typer.Option("--format", help="The kind of document.")
    ] = Format.JSON_SCHEMA,
    app: App = None,
    app_dir: AppDir = None,
    plugins: Plugins = False,
    _as_json: Annotated[
        bool, typer.Option("--json", help="Write JSON, as without this option.")
    ] = False,
) -> None:
    """Write JSON Schema, or an AsyncAPI document; with a bridge, of what it sends and takes in."""
    from madcrow_events import catalog

    output = Output()
    found = load_application(app, app_dir, with_plugins=plugins)
    bridge = bridge_in(found.made)
    if bridge is not None and format_ is Format.ASYNCAPI:
        if pattern != "*":
            raise CommandError(
                "the document of a bridge has all that it sends and takes in: leave out "
                f"'{printable(pattern)}', or name the module alone"
            )
        document = theirs("describing the bridge", bridge.asyncapi)
        output.show("schema", document, as_json=True)
        return
    chosen = matching(found.signals, pattern)
    make = catalog.json_schema if format_ is Format.JSON_SCHEMA else catalog.asyncapi
    is_pattern = "*" in pattern
    wanted = pattern if is_pattern else chosen[0].name
    document = theirs("describing the events", partial(make, wanted, signals=found.signals))
    output.show("schema", document, as_json=True)


@_example("emit order_placed order_id=7 --app shop.events")
def emit(
    event: Event,
    pairs: Pairs = None,
    json_values: Annotated[
        list[str] | None,
        typer.Option(
            "--json",
            metavar="[FILE]",
            help="With a file, or - for the standard input: read the context from it. Without a "
            "file: write JSON.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    app: App = None,
    app_dir: AppDir = None,
    plugins: Plugins = False,
) -> None:
    """Emit an event, and show what its handlers did.

    It lists the handlers that would run, and asks whether to go on. Then it waits for all of them,
    and shows what each returned or raised. The status is 1 if one of them failed.
    """
    from madcrow_events.cli._emitting import emit_and_wait

    files = [it for it in json_values or () if it]
    if len(files) > 1:
        raise CommandError("the context comes from one file: give --json FILE once")
    output = Output()
    fields = read_pairs(pairs or (), *files)
    found = load_application(app, app_dir, with_plugins=plugins, is_inspected=False)
    signal = found_event(found.signals, event)
    payload = payload_of(signal, fields)
    expected = explained_record(found.signals, signal, payload, sender=None)
    if not yes:
        _ask(output, {**expected, "left_out": []})
    dispatcher = found.dispatcher or found.signals.dispatcher
    record = emit_and_wait(dispatcher, signal, payload, expected)
    output.show("emit", record, as_json="" in (json_values or ()))
    if not record["ok"]:
        raise typer.Exit(FOUND)


@_example("worker --app shop.events:worker")
def worker(
    app: OutboxApp = None,
    app_dir: AppDir = None,
    database: Database = None,
    handlers: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="Call only these durable handlers, such as 'mail*'."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="How many handlers run at the same time."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End as soon as nothing is due.")] = False,
) -> None:
    """Call the durable handlers of an application, until SIGTERM or Ctrl-C.

    Meanwhile, its bridges send events to other services, and take in theirs. Then it waits for the
    handlers that run, and ends with the status 0. A second signal gives them up, so that other
    workers call them again.
    """
    from madcrow_events.cli._outboxes import (
        bridge_without_outbox,
        named_application,
        outbox_in,
    )
    from madcrow_events.cli._working import carry, work

    named = named_application(app, app_dir)
    if (bridge := bridge_without_outbox(named)) is not None:
        options = {"--database": database, "--handlers": handlers, "--concurrency": concurrency}
        carry(bridge, {**options, "--once": once})
        return
    work(outbox_in(named, database), handlers=handlers, concurrency=concurrency, once=once)


COMMAND.add_typer(OUTBOX, name="outbox")  # below the worker in the help


@OUTBOX.command()
def status(
    app: OutboxApp = None,
    app_dir: AppDir = None,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Show what waits, what is dead, and what is held up."""
    from madcrow_events.cli._outbox_records import outbox_record
    from madcrow_events.cli._outboxes import find_outbox

    output = Output()
    record = outbox_record(find_outbox(app, app_dir, database))
    output.show("outbox", record, as_json=as_json)


@OUTBOX.command()
def ddl(
    app: OutboxApp = None,
    app_dir: AppDir = None,
    database: Database = None,
    dialect: Annotated[
        Dialect | None, typer.Option(help="The kind of database; else that of the database.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the statements that make the tables."""
    from madcrow_events.cli._outbox_records import ddl_record
    from madcrow_events.cli._outboxes import find_outbox

    output = Output()
    found = find_outbox(app, app_dir, database, is_inspected=True)
    output.show("ddl", ddl_record(found, dialect), as_json=as_json)


def _ask(output: Output, expected: ExplainedRecord) -> None:
    """Show the handlers that would run, and ask the user whether to emit.

    Raises:
        CommandError: nobody can answer.
    """
    if not sys.stdin.isatty():
        raise CommandError("nobody can be asked here whether to emit: give --yes")
    say(output.drawn("explain", expected).rstrip())
    typer.confirm("Emit it?", abort=True, err=True)


def _hint(found: Application) -> None:
    """Say how to see the events of an application."""
    if found.name is None:
        say("These are the built-in events. To see yours, name your application: --app shop.events")
