"""Drawing records for people, with rich."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from madcrow_events._text import printable
from madcrow_events.cli._explaining import called_from, left_out_from
from madcrow_events.cli._places import Line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.console import JustifyMethod, RenderableType

    from madcrow_events.cli._doctor import Examination, Finding, FindingKind
    from madcrow_events.cli._durable import DurableRecord
    from madcrow_events.cli._emitting import CallRecord, EmissionRecord, RaisedRecord
    from madcrow_events.cli._explaining import ExplainedRecord
    from madcrow_events.cli._outbox_records import (
        BlockedRecord,
        DdlRecord,
        DurableHandlerRecord,
        OutboxRecord,
    )
    from madcrow_events.cli._plugins import CheckedPlugins, PluginRecord
    from madcrow_events.cli._records import EventRecord, HandlerRecord, HandlersRecord
    from madcrow_events.cli._showing import FieldRecord, ShownRecord

__all__ = ["DRAWINGS"]

_NAME = "bold cyan"
_MUTED = "dim"
_WRONG = "bold red"
_RIGHT = "green"

_LONGEST: Final = 1000
"""How many characters of a text are shown at most."""

_STATUS_STYLES: Final = {"loaded": _RIGHT, "refused": "yellow", "failed": _WRONG}

_NUMBERS: Final = ("handlers", "ms", "events", "deliveries", "waiting")
"""The headers of the columns that have numbers."""

_NARROW: Final = 60
"""Below this width, in columns, the cells of a row stand one below the other."""


def _listed(
    headers: tuple[str, ...], rows: Iterable[tuple[str | Text, ...]], width: int
) -> RenderableType:
    """Return rows as a table without a frame, or one below the other in a narrow terminal."""
    if width < _NARROW:
        return Group(*(_stacked(headers, row) for row in rows))
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for header in headers:
        justify: JustifyMethod = "right" if header in _NUMBERS else "left"
        made.add_column(header, overflow="fold", justify=justify)
    for row in rows:
        made.add_row(*row)
    return made


def _stacked(headers: tuple[str, ...], cells: tuple[str | Text, ...]) -> RenderableType:
    """Return a row with its name above the other cells; a number has its header beside it."""
    told = Text(", ").join(
        Text.assemble(f"{header}: " if header in _NUMBERS else "", it)
        for header, it in zip(headers[1:], cells[1:], strict=True)
        if it
    )
    return Group(cells[0], Padding(told, (0, 0, 0, 2))) if told else Group(cells[0])


def _draw_events(records: list[EventRecord], width: int) -> RenderableType:
    """Draw the events of the application, and then the built-in ones."""
    tables = [
        _listed(
            ("event" if not is_built_in else "built-in event", "handlers", "model and description"),
            [
                (Text(it["event"], _style_of(it)), str(it["handlers"]), _meaning(it))
                for it in records
                if it["built_in"] is is_built_in
            ],
            width,
        )
        for is_built_in in (False, True)
        if any(it["built_in"] is is_built_in for it in records)
    ]
    return Group(*(Padding(it, (1 if it is not tables[0] else 0, 0, 0, 0)) for it in tables))


def _style_of(record: EventRecord) -> str:
    return _MUTED if record["built_in"] else _NAME


def _one_line(text: str | None) -> str:
    """Return a text of the application's in one line, without what would move the cursor."""
    return printable(" ".join((text or "").split()), _LONGEST)


def _meaning(record: EventRecord) -> str:
    """Return the model, the description and the key of an event."""
    model = (record["model"] or "").rpartition(".")[2]
    text = ": ".join(filter(None, (model, _one_line(record["description"]))))
    return f"{text} (key {record['key']})" if record["key"] else text


def _draw_handlers(records: list[HandlersRecord], _width: int) -> RenderableType:
    """Draw a tree: each event with its handlers in calling order."""
    heard = [it for it in records if it["handlers"] or it["durable"]]
    silent = [it for it in records if not (it in heard or it["built_in"])]
    parts: list[RenderableType] = [
        _tree_of(it["event"], it["model"], it["handlers"], it["durable"]) for it in heard
    ]
    if not records:
        parts.append(Text("No event is declared.", _MUTED))
    if silent:
        names = ", ".join(it["event"] for it in silent)
        parts.append(Text(f"without handlers: {names}", _MUTED))
    return Group(*parts)


def _tree_of(
    event: str, model: str | None, handlers: list[HandlerRecord], durable: list[DurableRecord]
) -> Tree:
    itself = (model or "").rpartition(".")[2]
    tree = Tree(Text(event, _NAME), guide_style=_MUTED)
    for number, handler in enumerate(handlers, 1):
        name = handler["name"]
        name += f" ({handler['function']})" if handler["id"] else ""
        tree.add(Text.assemble(f"{number}. {name}: ", *_details(handler, itself)))
    for it in durable:
        name = it["id"] if it["id"] == it["function"] else f"{it['id']} ({it['function']})"
        tree.add(Text.assemble(f"{name}: durable", (f"  {_line(it) or ''}", _MUTED)))
    return tree


def _details(handler: HandlerRecord, model: str) -> Iterable[Text]:
    """Yield how a handler is called, and where it comes from.

    That it is subscribed to the event's own class, as most are, is left out.
    """
    details = {
        handler["mode"]: True,
        f"priority {handler['priority']}": handler["priority"],
        f"when {handler['condition']}": handler["condition"],
        "once": handler["once"],
        "while its object lives": handler["weak"],
        f"timeout {handler['timeout']} s": handler["timeout"] is not None,
        "failures are raised": handler["on_error"],
        f"for {handler['sender']} only": handler["sender"],
        f"by {handler['pattern']}": handler["pattern"] not in (None, model),
        f"of {handler['origin']}": handler["origin"],
    }
    yield Text(", ".join(text for text, is_shown in details.items() if is_shown))
    yield Text(f"  {_line(handler) or ''}", _MUTED)


def _draw_shown(record: ShownRecord, width: int) -> RenderableType:
    """Draw an event with its fields, an example as JSON and as code, and its handlers."""
    event = record["event"]
    title = Text(event["event"], _NAME)
    title.append(f"  {_one_line(event['description'])}", "not bold default")
    about = Table.grid(padding=(0, 2, 0, 0))
    facts = {
        "model": event["model"],
        "declared": _line(event),
        "key": event["key"],
        "formerly": ", ".join(event["formerly"]),
    }
    for name, fact in facts.items():
        if fact:
            about.add_row(Text(name, _MUTED), Text(fact, overflow="fold"))
    parts: list[RenderableType] = [title, about]
    if record["fields"]:
        parts += [_heading("Fields"), _draw_fields(record["fields"], width)]
    if record["example"] is not None:
        shown = json.dumps(record["example"], indent=2, ensure_ascii=False)
        parts += [_heading("As JSON"), Text(shown)]
    # It is to be copied, so it is never broken into other lines.
    parts += [_heading("As code"), Text(record["code"], no_wrap=True, overflow="ignore")]
    if record["handlers"] or record["durable"]:
        tree = _tree_of(event["event"], event["model"], record["handlers"], record["durable"])
        parts += [_heading("Handlers"), tree]
    else:
        parts += [Text(), Text("Nobody listens.", _MUTED)]
    return Group(*parts)


def _heading(text: str) -> Text:
    return Text(f"\n{text}", "bold")


def _draw_fields(fields: list[FieldRecord], width: int) -> RenderableType:
    rows = (
        (
            it["name"],
            f"{it['type']} {it['limits']}" if it["limits"] else it["type"],
            Text("required", _RIGHT) if it["required"] else Text(it["default"] or "", _MUTED),
            _one_line(it["description"]),
        )
        for it in fields
    )
    return _listed(("field", "type", "default", "description"), rows, width)


def _line(
    record: EventRecord | HandlerRecord | DurableRecord | RaisedRecord | Finding,
) -> str | None:
    file, line = record["file"], record["line"]
    return None if file is None or line is None else str(Line(file, line))


def _draw_explanation(record: ExplainedRecord, _width: int) -> RenderableType:
    """Draw who would be called, and who would not and why."""
    event, called = Text(record["event"], _NAME), record["called"]
    parts: list[RenderableType] = [
        Text.assemble(event, " would call, in this order:" if called else " would call nobody.")
    ]
    parts += [_indented(f"{number}. {it}") for number, it in enumerate(called_from(record), 1)]
    if record["missing"]:
        names = ", ".join(record["missing"])
        parts.append(Text(f"Required fields are missing, so no context was made: {names}", _WRONG))
    if called and not record["has_context"]:
        parts.append(Text("Without fields, no `when` was asked: give them, as in order_id=7."))
    for title, has_ended in (("Left out:", False), ("Ended:", True)):
        listed = [it for it in left_out_from(record) if it.has_ended is has_ended]
        parts += [Text(title, "bold")] if listed else []
        parts += [_indented(f"- {it}") for it in listed]
    return Group(*parts, *_not_reached(record["durable"]))


def _not_reached(durable: list[str]) -> list[Text]:
    """Return a line on the durable handlers of an event, if it has some."""
    names = ", ".join(durable)
    told = f"Durable handlers hear only of outbox.emit(session, ...): {names}"
    return [Text(told, _MUTED)] if durable else []


def _indented(text: str) -> Padding:
    return Padding(Text(text), (0, 0, 0, 2))


def _draw_plugins(records: list[PluginRecord], width: int) -> RenderableType:
    """Draw the installed plugins."""
    if not records:
        return Text("No plugin is installed.")
    rows = ((Text(it["name"], _NAME), it["version"], it["target"]) for it in records)
    return _listed(("plugin", "version", "group"), rows, width)


def _draw_checked(record: CheckedPlugins, width: int) -> RenderableType:
    """Draw which plugins would load."""
    if not record["plugins"]:
        return Text("No plugin is installed.")
    rows = (
        (
            Text(it["name"], _NAME),
            it["version"],
            Text(it["status"], _STATUS_STYLES[it["status"]]),
            f"{it['milliseconds']:.0f}" if it["milliseconds"] else "",
            it["reason"] or f"events: {len(it['events'])}, handlers: {len(it['handlers'])}",
        )
        for it in record["plugins"]
    )
    headers = ("plugin", "version", "status", "ms", "events, handlers, or why not")
    return _listed(headers, rows, width)


def _draw_emission(record: EmissionRecord, width: int) -> RenderableType:
    """Draw what came of each handler of an emission."""
    durable = _not_reached(record["durable"])
    if not record["handlers"]:
        listeners = "no ordinary handler" if durable else "nobody"
        return Group(f"{record['event']} was emitted, and {listeners} listens.", *durable)
    rows = (
        (
            it["name"],
            _duration(it["milliseconds"]),
            _outcome(it),
        )
        for it in record["handlers"]
    )
    return Group(_listed(("handler", "ms", "result"), rows, width), *durable)


def _duration(milliseconds: float | None) -> str:
    if milliseconds is None:
        return ""
    return f"{milliseconds:.3f}" if milliseconds < 1 else f"{milliseconds:.1f}"


def _outcome(call: CallRecord) -> Text:
    raised = call["raised"]
    if raised is not None:
        text = f": {raised['message']}" if raised["message"] else ""
        line = _line(raised)
        return Text.assemble((raised["type"], _WRONG), text, (f"\n{line}" if line else "", _MUTED))
    if call["status"] == "pending":
        return Text("has not ended", _WRONG)
    value = call["value"]
    shown = printable(value, _LONGEST) if isinstance(value, str) else json.dumps(value)
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
    for kind, found in groupby(record["findings"], key=_kind_of):
        parts += [Text(_HEADINGS[kind], "bold"), *map(_finding, found), Text()]
    if record["perhaps_handled"]:
        names = ", ".join(record["perhaps_handled"])
        text = f"perhaps handled, by an observer or by code that has not run yet: {names}"
        parts += [Text(text, _MUTED), Text()]
    number = len(record["findings"])
    text = f"{counts}: {_many(number, 'finding') if number else 'nothing wrong'}"
    return Group(*parts, Text(text, _WRONG if number else _RIGHT))


def _kind_of(it: Finding) -> FindingKind:
    return it["kind"]


def _finding(it: Finding) -> RenderableType:
    """Draw one finding: where it is, what is wrong, and what to do."""
    shown = Text(it["message"])
    where = _line(it)
    if where is not None:
        shown = Text.assemble((where, _NAME), "\n", shown)
    shown.append(f"\nto do: {it['fix']}", _MUTED)
    return Padding(shown, (0, 0, 0, 2))


def _draw_outbox(record: OutboxRecord, width: int) -> RenderableType:
    """Draw what there is in an outbox, and what needs somebody."""
    new = record["new"]
    title = Text.assemble((record["source"], _NAME), f": {_many(new, 'new event')}")
    title.append(f", the oldest {_age(record['oldest_new'])} old" if new else "")
    parts: list[RenderableType] = [title, Text()]
    rows: list[tuple[str | Text, ...]] = [
        (Text(it["name"], _NAME), it["event"], _open(it), f"{_age(it['seen'])} ago")
        for it in record["handlers"]
    ]
    if rows:
        parts.append(_listed(("handler", "event", "open deliveries", "last seen"), rows, width))
    else:
        parts.append(Text("No worker has announced a handler yet.", _MUTED))
    rows = [(it["event"], str(it["count"]), _age(it["oldest"])) for it in record["set_aside"]]
    if rows:
        parts.append(_heading("Events that no handler was announced for"))
        parts.append(_listed(("event", "events", "oldest"), rows, width))
    rows = [(Text(it["group"], _WRONG), it["handler"], str(it["count"])) for it in record["dead"]]
    if rows:
        parts.append(_heading("Dead deliveries"))
        parts.append(_listed(("exception", "handler", "deliveries"), rows, width))
    rows = [_blocked(it) for it in record["blocked"]]
    if rows:
        parts.append(_heading("Keys that are held up"))
        parts.append(_listed(("by", "handler", "which is", "since", "waiting"), rows, width))
    if record["oldest_transaction"] >= 1:
        age = _age(record["oldest_transaction"])
        parts += [Text(), Text(f"the oldest transaction of the database is {age} old", _MUTED)]
    return Group(*parts)


def _blocked(it: BlockedRecord) -> tuple[str | Text, ...]:
    is_dead = it["is_dead"]
    state = Text("dead" if is_dead else "delayed", _WRONG if is_dead else "")
    since = _age(it["age"]) if it["age"] else ""  # one that is delayed may have no failure
    return it["head"], it["handler"], state, since, str(it["waiting"])


def _open(it: DurableHandlerRecord) -> Text:
    """Return how many deliveries of a handler there are in each state; none of 0."""
    numbers = {
        "dead": it["dead"],
        "running": it["running"],
        f"due for {_age(it['oldest_due'])}": it["due"],
        "delayed": it["delayed"],
        "parked": it["parked"],
        "of them of an unknown version": it["unknown"],
    }
    told = [
        Text(f"{number} {state}", _WRONG if state == "dead" else "")
        for state, number in numbers.items()
        if number
    ]
    marks = [Text(mark, "yellow") for mark in ("paused", "retired") if it[mark]]
    return Text(", ").join([*told, *marks]) if told or marks else Text("none", _MUTED)


def _age(seconds: float) -> str:
    """Return a duration in the largest unit of which there are two or more."""
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _draw_ddl(record: DdlRecord, _width: int) -> RenderableType:
    """Draw statements as a file for a database."""
    text = "\n\n".join(f"{it};" for it in record["statements"])
    return Text(text, no_wrap=True, overflow="ignore")  # it is to be copied


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


DRAWINGS: Final[dict[str, Callable[[Any, int], RenderableType]]] = {
    "check": _draw_checked,
    "ddl": _draw_ddl,
    "doctor": _draw_examination,
    "emit": _draw_emission,
    "events": _draw_events,
    "explain": _draw_explanation,
    "handlers": _draw_handlers,
    "outbox": _draw_outbox,
    "plugins": _draw_plugins,
    "show": _draw_shown,
}
"""How the record of each command is drawn: it is given the record and the width in columns."""
