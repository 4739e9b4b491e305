"""Drawing records for people, with rich."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, cast

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from madcrow_events.cli._places import Line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.console import RenderableType

    from madcrow_events.cli._doctor import Examination, Finding, FindingKind
    from madcrow_events.cli._emitting import CallRecord, EmissionRecord
    from madcrow_events.cli._plugins import CheckedPlugins, PluginRecord
    from madcrow_events.cli._records import EventRecord, HandlerRecord, HandlersRecord
    from madcrow_events.cli._showing import FieldRecord, ShownRecord

__all__ = ["DRAWINGS"]

_NAME = "bold cyan"
_MUTED = "dim"
_WRONG = "bold red"
_RIGHT = "green"

_NARROW = 60
"""Below this width, in columns, a table shows only what identifies a row."""


def _table(*headers: str) -> Table:
    """Return an empty table without a frame."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for header in headers:
        made.add_column(header, overflow="fold", justify="right" if header == "handlers" else "left")
    return made


def _draw_events(records: list[EventRecord], width: int) -> RenderableType:
    """Draw the events of the application, and then the built-in ones."""
    headers = ("event", "handlers", "model", "description")
    made = _table(*headers[: 2 if width < _NARROW else 4])
    if any(it["key"] for it in records) and width >= _NARROW:
        made.add_column("key", overflow="fold")
    for record in sorted(records, key=lambda it: it["built_in"]):
        model = (record["model"] or "").rpartition(".")[2]
        cells = [
            Text(record["event"], _MUTED if record["built_in"] else _NAME),
            Text(str(record["handlers"]), _MUTED if record["handlers"] == 0 else ""),
            Text(model, _MUTED if record["built_in"] else ""),
            Text(record["description"] or "", _MUTED if record["built_in"] else ""),
            Text(record["key"] or ""),
        ]
        made.add_row(*cells[: len(made.columns)])
    return made


def _draw_handlers(records: list[HandlersRecord], _width: int) -> RenderableType:
    """Draw a tree: each event with its handlers in calling order."""
    heard = [it for it in records if it["handlers"]]
    silent = [it for it in records if not it["handlers"]]
    parts: list[RenderableType] = [_tree_of(it) for it in heard]
    if silent:
        names = ", ".join(it["event"] for it in silent)
        parts.append(Text(f"without handlers: {names}", _MUTED))
    return Group(*parts)


def _tree_of(record: HandlersRecord) -> Tree:
    tree = Tree(Text(record["event"], _NAME), guide_style=_MUTED)
    for number, handler in enumerate(record["handlers"], 1):
        tree.add(Text.assemble(f"{number}. {handler['name']}: ", *_details(handler)))
    return tree


def _details(handler: HandlerRecord) -> Iterable[Text]:
    """Yield how a handler is called, and where it comes from."""
    details = {
        handler["mode"]: True,
        f"priority {handler['priority']}": handler["priority"],
        f"when {handler['condition']}": handler["condition"],
        "once": handler["once"],
        "while its object lives": handler["weak"],
        f"timeout {handler['timeout']} s": handler["timeout"] is not None,
        "failures are raised": handler["on_error"],
        f"for {handler['sender']} only": handler["sender"],
        f"by {handler['pattern']}": handler["pattern"],
        f"id {handler['id']}": handler["id"],
        f"of {handler['origin']}": handler["origin"],
    }
    yield Text(", ".join(text for text, is_shown in details.items() if is_shown))
    yield Text(f"  {_line(handler) or ''}", _MUTED)


def _draw_shown(record: ShownRecord, _width: int) -> RenderableType:
    """Draw an event with its fields, an example as JSON and as code, and its handlers."""
    event = record["event"]
    about = Table.grid(padding=(0, 2, 0, 0))
    former = ", ".join(event["formerly"])
    facts = (
        ("model", event["model"]),
        ("declared", _line(event)),
        ("key", event["key"]),
        ("formerly", former),
    )
    for name, fact in facts:
        if fact:
            about.add_row(Text(name, _MUTED), fact)
    title = Text(event["event"], _NAME)
    title.append(f"  {event['description']}" if event["description"] else "", "")
    parts: list[RenderableType] = [title, about]
    if record["fields"]:
        parts += [_heading("Fields"), _fields(record["fields"])]
    if record["example"] is not None:
        shown = json.dumps(record["example"], indent=2, ensure_ascii=False)
        parts += [_heading("As JSON"), Text(shown)]
    parts += [_heading("As code"), Text(record["code"])]
    if record["handlers"]:
        listed = {"event": event["event"], "handlers": record["handlers"]}
        parts += [_heading("Handlers"), _tree_of(cast("HandlersRecord", listed))]
    else:
        parts += [Text(), Text("Nobody listens.", _MUTED)]
    return Group(*parts)


def _heading(text: str) -> Text:
    return Text(f"\n{text}", "bold")


def _fields(fields: list[FieldRecord]) -> Table:
    made = _table("field", "type", "default", "description")
    for it in fields:
        default = Text("required", _RIGHT) if it["required"] else Text(it["default"] or "", _MUTED)
        made.add_row(it["name"], it["type"], default, it["description"] or "")
    return made


def _line(record: EventRecord | HandlerRecord | Finding) -> str | None:
    file, line = record["file"], record["line"]
    return None if file is None or line is None else str(Line(file, line))


def _draw_plugins(records: list[PluginRecord], _width: int) -> RenderableType:
    """Draw the installed plugins."""
    if not records:
        return Text("No plugin is installed.")
    made = _table("plugin", "version", "group")
    for it in records:
        made.add_row(Text(it["name"], _NAME), it["version"], it["target"])
    return made


def _draw_checked(record: CheckedPlugins, _width: int) -> RenderableType:
    """Draw which plugins would load."""
    if not record["plugins"]:
        return Text("No plugin is installed.")
    made = _table("plugin", "version", "status", "ms", "events, handlers, or why not")
    for it in record["plugins"]:
        counts = f"{len(it['events'])} events, {len(it['handlers'])} handlers"
        style = {"loaded": _RIGHT, "failed": _WRONG}.get(it["status"], "yellow")
        made.add_row(
            Text(it["name"], _NAME),
            it["version"],
            Text(it["status"], style),
            f"{it['milliseconds']:.0f}" if it["milliseconds"] else "",
            it["reason"] or counts,
        )
    return made


def _draw_emission(record: EmissionRecord, _width: int) -> RenderableType:
    """Draw what came of each handler of an emission."""
    if not record["handlers"]:
        return Text(f"{record['event']} was emitted, and nobody listens.")
    made = _table("handler", "ms", "result")
    for call in record["handlers"]:
        took = "" if call["milliseconds"] is None else f"{call['milliseconds']:.1f}"
        made.add_row(call["name"], took, _outcome(call))
    return made


def _outcome(call: CallRecord) -> Text:
    raised = call["raised"]
    if raised is not None:
        text = Text(raised["type"], _WRONG)
        text.append(f": {raised['message']}" if raised["message"] else "", "")
        if raised["file"] is not None and raised["line"] is not None:
            text.append(f"\n{Line(raised['file'], raised['line'])}", _MUTED)
        return text
    if call["status"] == "pending":
        return Text("has not ended", _WRONG)
    value = call["value"]
    shown = value if isinstance(value, str) else json.dumps(value)
    return Text("returned nothing", _MUTED) if value is None else Text(f"returned {shown}", _RIGHT)


_HEADINGS: Final[dict[FindingKind, str]] = {
    "unhandled_event": "Events that nobody handles",
    "undeclared_event": "Events that nobody declares",
    "unmatched_pattern": "Patterns that match no event",
    "unmatched_class": "Classes that are the model of no event",
    "unmatched_optional": "Optional handlers that wait in vain",
    "repeated_handler": "Handlers that are subscribed again and again",
    "similar_names": "Names that differ by a letter",
    "slow_import": "Slow imports",
    "refused_plugin": "Plugins that are refused",
    "failed_plugin": "Plugins that fail to load",
    "unknown_plugin": "Entries of lists that mean no plugin",
    "unlisted_plugins": "Plugins without an allow list",
    "old_name": "Old names in use",
}
"""What is written above the findings of each kind."""


def _draw_examination(record: Examination, _width: int) -> RenderableType:
    """Draw what is wrong, by kind, with where it is and what to do; or that nothing is wrong."""
    counts = f"{_many(record['events'], 'event')}, {_many(record['handlers'], 'handler')}"
    if record["plugins"]:
        counts += f", {_many(record['plugins'], 'plugin')}"
    parts: list[RenderableType] = []
    for kind, found in groupby(record["findings"], key=lambda it: it["kind"]):
        parts += [Text(_HEADINGS[kind], "bold"), *map(_finding, found), Text()]
    if record["observed"]:
        names = ", ".join(record["observed"])
        parts += [Text(f"handled by nobody, but observed: {names}", _MUTED), Text()]
    number = len(record["findings"])
    text = f"{counts}: {_many(number, 'finding') if number else 'nothing wrong'}"
    return Group(*parts, Text(text, _WRONG if number else _RIGHT))


def _finding(it: Finding) -> RenderableType:
    """Draw one finding: where it is, what is wrong, and what to do."""
    shown = Text(it["message"])
    where = _line(it)
    if where is not None:
        shown = Text.assemble((where, _NAME), "\n", shown)
    shown.append(f"\nto do: {it['fix']}", _MUTED)
    return Padding(shown, (0, 0, 0, 2))


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


DRAWINGS: Final[dict[str, Callable[[Any, int], RenderableType]]] = {
    "check": _draw_checked,
    "doctor": _draw_examination,
    "emit": _draw_emission,
    "events": _draw_events,
    "handlers": _draw_handlers,
    "plugins": _draw_plugins,
    "show": _draw_shown,
}
"""How the record of each command is drawn: it is given the record and the width in columns."""
