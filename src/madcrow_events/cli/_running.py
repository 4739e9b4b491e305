"""The subcommands, and how each of them ends."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from enum import Enum
from typing import Annotated, Any, Final, NoReturn

import typer

from madcrow_events.cli._application import Application, load_application
from madcrow_events.cli._context import (
    Payload,
    explained,
    partial_payload_of,
    payload_of,
    read_pairs,
)
from madcrow_events.cli._errors import FOUND, INTERRUPTED, CommandError
from madcrow_events.cli._output import Output, say
from madcrow_events.cli._records import event_records, found_event, handlers_records, matching

__all__ = ["COMMAND", "run", "status_of"]

COMMAND: Final = typer.Typer(
    name="madcrow-events",
    help="Show the events of an application, who listens to them, and what is wrong.",
    epilog="Each command has examples: madcrow-events events --help",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
PLUGINS: Final = typer.Typer(help="List the installed plugins.", rich_markup_mode=None)
COMMAND.add_typer(PLUGINS, name="plugins")

Pattern = Annotated[
    str, typer.Argument(metavar="[PATTERN]", help="The name of an event, or a pattern: 'order_*'.")
]
Event = Annotated[str, typer.Argument(metavar="EVENT", help="The name of an event.")]
Pairs = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Fields of the context: order_id=7."),
]
App = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE[:ATTRIBUTE]",
        help="Import the application first. The attribute may be its registry, its dispatcher, or "
        "the function that makes the application.",
    ),
]
AppDir = Annotated[
    str | None,
    typer.Option("--app-dir", metavar="FOLDER", help="Look for the application in this folder, too."),
]
Plugins = Annotated[bool, typer.Option("--plugins", help="Load the installed plugins, too.")]
Json = Annotated[bool, typer.Option("--json", help="Write JSON.")]


class Format(str, Enum):
    """The documents that `schema` writes."""

    JSON_SCHEMA = "json-schema"
    ASYNCAPI = "asyncapi"


def run(arguments: Sequence[str]) -> NoReturn:
    """Run the command, and end the process.

    Args:
        arguments: the arguments, without the name of the command.
    """
    status = status_of(arguments)
    others = [it for it in threading.enumerate() if it is not threading.current_thread()]
    if any(not it.daemon for it in others):
        # Threads that the application started would keep the process for ever.
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def status_of(arguments: Sequence[str]) -> int:
    """Run the command, and return the status with which the process is to end.

    Args:
        arguments: the arguments, without the name of the command.
    """
    try:
        typer.main.get_command(COMMAND)(_with_optional_values(arguments), "madcrow-events")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except CommandError as error:
        if str(error):
            say(f"madcrow-events: {error}")
        return error.status
    except KeyboardInterrupt:
        say("madcrow-events: interrupted")
        return INTERRUPTED
    return 0  # pragma: no cover  # typer always ends by SystemExit


def _with_optional_values(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with an empty value for each `--json` of `emit` that has none."""
    given = [*arguments]
    if given[:1] != ["emit"]:
        return given
    for at in reversed(range(len(given))):
        following = given[at + 1 : at + 2]
        has_value = bool(following) and "=" not in following[0]
        if given[at] == "--json" and not (has_value and not following[0].startswith("--")):
            given.insert(at + 1, "")
    return given


@COMMAND.command()
def events(
    pattern: Pattern = "*",
    app: App = None,
    app_dir: AppDir = None,
    plugins: Plugins = False,
    as_json: Json = False,
) -> None:
    """List the events: the model, the meaning, and how many handlers each has."""
    output = Output()
    found = load_application(app, app_dir, with_plugins=plugins)
    output.show("events", event_records(found.signals, pattern), as_json=as_json)
    _hint(found)


@COMMAND.command()
def handlers(
    pattern: Pattern = "*",
    app: App = None,
    app_dir: AppDir = None,
    plugins: Plugins = False,
    as_json: Json = False,
) -> None:
    """List the handlers of each event, in the order in which they are called."""
    output = Output()
    found = load_application(app, app_dir, with_plugins=plugins)
    output.show("handlers", handlers_records(found.signals, pattern), as_json=as_json)
    _hint(found)


@COMMAND.command()
def show(
    event: Event,
    app: App = None,
    app_dir: AppDir = None,
    plugins: Plugins = False,
    as_json: Json = False,
) -> None:
    """Show one event: its fields, an example as JSON and as code, and who listens."""
    from madcrow_events.cli._showing import shown_record

    output = Output()
    found = load_application(app, app_dir, with_plugins=plugins)
    record = shown_record(found.signals, found_event(found.signals, event))
    output.show("show", record, as_json=as_json)


@COMMAND.command()
def explain(
    event: Event,
    pairs: Pairs = None,
    app: App = None,
    app_dir: AppDir = None,
    plugins: Plugins = False,
    as_json: Json = False,
) -> None:
    """Say who would be called for an event, who would not, and why; nobody is called.

    Without fields, no condition is asked. With all required fields, it explains an emission with a
    context; with some of them, one with keywords.
    """
    output = Output()
    fields = read_pairs(pairs or ())
    found = load_application(app, app_dir, with_plugins=plugins)
    signal = found_event(found.signals, event)
    payload = partial_payload_of(signal, fields) if fields else Payload(None, {})
    explanation = explained(found.signals, signal, payload)
    if not as_json:
        output.write(f"{explanation}\n")
        return
    called = [it._asdict() for it in explanation.called]
    left_out = [it._asdict() for it in explanation.left_out]
    output.show(
        "explain",
        {**explanation._asdict(), "called": called, "left_out": left_out},
        as_json=True,
    )


@PLUGINS.callback(invoke_without_command=True)
def plugins(context: typer.Context, as_json: Json = False) -> None:
    """List the installed plugins, without importing them."""
    if context.invoked_subcommand is None:
        from madcrow_events.cli._plugins import plugin_records

        Output().show("plugins", plugin_records(), as_json=as_json)


@PLUGINS.command()
def check(as_json: Json = False) -> None:
    """Try to load each plugin, in a process of its own; the status is 1 if one would not load."""
    from madcrow_events.cli._plugins import checked_plugins

    output = Output()
    record = checked_plugins()
    output.show("check", record, as_json=as_json)
    for warning in record["warnings"]:
        say(f"madcrow-events: {warning}")
    if record["warnings"] or any(it["status"] != "loaded" for it in record["plugins"]):
        raise typer.Exit(FOUND)


@COMMAND.command()
def doctor(
    app: App = None,
    app_dir: AppDir = None,
    plugins: Plugins = False,
    as_json: Json = False,
) -> None:
    """Find what is wrong with the events of an application; the status is 1 if anything is.

    It looks for events that nobody handles or declares, for patterns and classes that match
    nothing, for handlers that are subscribed again and again, for names that differ by a letter,
    for slow imports, for plugins that would not load, and for old names.
    """
    from madcrow_events.cli._doctor import examine

    if app is None:
        raise CommandError("name the application to examine, as in --app shop.events")
    output = Output()
    record = examine(app, app_dir, with_plugins=plugins)
    output.show("doctor", record, as_json=as_json)
    if record["findings"]:
        raise typer.Exit(FOUND)


@COMMAND.command()
def schema(
    pattern: Pattern = "*",
    format_: Annotated[Format, typer.Option("--format", help="Which document.")] = Format.JSON_SCHEMA,
    app: App = None,
    app_dir: AppDir = None,
    plugins: Plugins = False,
    as_json: Json = True,
) -> None:
    """Write the events as JSON Schema, or as an AsyncAPI document."""
    from madcrow_events import catalog

    output = Output()
    found = load_application(app, app_dir, with_plugins=plugins)
    matching(found.signals, pattern)  # says so if it matches nothing
    make = catalog.json_schema if format_ is Format.JSON_SCHEMA else catalog.asyncapi
    output.show("schema", make(pattern, signals=found.signals), as_json=True)


@COMMAND.command()
def emit(
    event: Event,
    pairs: Pairs = None,
    json_values: Annotated[
        list[str] | None,
        typer.Option(
            "--json",
            metavar="[FILE]",
            help="With a file, or - for the standard input: read the context from it. Without: "
            "write JSON.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    app: App = None,
    app_dir: AppDir = None,
    plugins: Plugins = False,
) -> None:
    """Emit an event in the application, and show what each handler returned or raised.

    It lists the handlers that would run, and asks first. The status is 1 if one of them fails.
    """
    files = [it for it in json_values or () if it]
    if len(files) > 1:
        raise CommandError("the context comes from one file: give --json FILE once")
    output = Output()
    fields = read_pairs(pairs or (), *files)
    found = load_application(app, app_dir, with_plugins=plugins)
    signal = found_event(found.signals, event)
    payload = payload_of(signal, fields)
    explanation = explained(found.signals, signal, payload, sender=None)
    if not yes:
        _ask(str(explanation))
    from madcrow_events.cli._emitting import emit_and_wait

    dispatcher = found.dispatcher or found.signals.dispatcher
    record = emit_and_wait(dispatcher, signal, payload, explanation)
    output.show("emit", record, as_json="" in (json_values or ()))
    if not record["ok"]:
        raise typer.Exit(FOUND)


def _ask(question: str) -> None:
    """Ask the user whether to emit.

    Raises:
        CommandError: nobody can answer.
    """
    if not sys.stdin.isatty():
        raise CommandError("nobody can be asked here whether to emit: give --yes")
    say(question)
    typer.confirm("Emit it?", abort=True, err=True)


def _hint(found: Application) -> None:
    if found.name is None:
        say("These are the built-in events. To see yours, name your application: --app shop.events")
