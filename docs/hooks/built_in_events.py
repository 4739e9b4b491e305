"""Write the tables of the built-in events as the documentation is built.

They are made from the registry and the models, so that the page cannot say anything else.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

import madcrow_events
from madcrow_events import BaseEventContext, madcrow_signals

EVENTS = "<!-- built-in events -->"
"""Where the table of the events belongs, on a page."""

FIELDS = "<!-- fields of the built-in events -->"
"""Where the fields of each event belong, on a page."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers by the tables; mkdocs calls this for each page."""
    for marker, table in ((EVENTS, events), (FIELDS, fields)):
        if marker in markdown:
            markdown = markdown.replace(marker, table())
    return markdown


def events() -> str:
    """Return a table of the built-in events, with what emits and what handles each."""
    helpers = dict(_helpers())
    rows = "".join(
        f"| [`{signal.name}`](#{signal.name}) | {signal.doc} "
        f"| {_api('emitting', helpers.get(('emit', signal.name)))} "
        f"| {_api('subscribing', helpers.get(('on', signal.name)))} |\n"
        for signal in _built_in()
    )
    return f"| event | what happened | emitter | decorator |\n|---|---|---|---|\n{rows}"


def fields() -> str:
    """Return a section for each built-in event, with the fields of its context."""
    return "\n".join(
        f"### `{signal.name}` {{ #{signal.name} }}\n\n"
        f"{signal.doc} Its context is {_api('contexts', signal.context_model.__name__)}.\n\n"
        f"{fields_of(signal.context_model)}"
        for signal in _built_in()
    )


def fields_of(model: type[BaseEventContext]) -> str:
    """Return a table of the fields that a model adds to those of all contexts."""
    rows = "".join(
        f"| `{name}` | {_type(field.annotation)} "
        f"| {'required' if field.is_required() else f'`{field.get_default()!r}`'} |\n"
        for name, field in model.model_fields.items()
        if name not in BaseEventContext.model_fields
    )
    return f"| field | type | default |\n|---|---|---|\n{rows}"


def _built_in() -> Iterator[Any]:
    """Yield the signals of the built-in events, in the order of their declaration."""
    for name in madcrow_events.signals.__all__:
        if name in madcrow_signals:
            yield madcrow_signals[name]


def _helpers() -> Iterator[tuple[tuple[str, str], str]]:
    """Yield the emitters and decorators, by what they do and their event."""
    for name in madcrow_events.__all__:
        says = re.match(
            r"(Emit|Subscribe a function to) `(\w+)`: ",
            inspect.getdoc(getattr(madcrow_events, name)) or "",
        )
        if says:
            yield ("emit" if says[1] == "Emit" else "on", says[2]), name


def _api(page: str, name: str | None) -> str:
    return f"[`{name}`](api/{page}.md#madcrow_events.{name})" if name else ""


def _type(annotation: Any) -> str:
    """Return an annotation as one would write it, as code."""
    if get_origin(annotation) in (Union, types.UnionType):
        members = get_args(annotation)
        return " or ".join(f"`{'None' if it is type(None) else it.__name__}`" for it in members)
    return f"`{annotation.__name__}`"
