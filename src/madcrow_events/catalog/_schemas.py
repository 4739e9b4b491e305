"""Which JSON Schema the context of an event has: that of what its model writes as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

if TYPE_CHECKING:
    from pydantic_core import core_schema

    from madcrow_events.signals import EventSignal

__all__ = ["Schema", "Schemas", "schemas_of"]

Schema = dict[str, Any]
"""A JSON Schema, as what `json.dumps` takes."""

_ANYTHING: Schema = {"description": "Any value: JSON Schema cannot describe its type."}
_UNDEFINED: Schema = {"description": "Any object: the model uses a name that is not defined."}
_LOOSE: Schema = {"type": "object"}
_DECIMAL = r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$"


class Schemas(NamedTuple):
    """The schemas of some events.

    Attributes:
        contexts: for each event, by its name, the schema of its context: a reference to one of the
            definitions, or any object.
        definitions: the schemas of classes, by names that differ for different classes.
    """

    contexts: dict[str, Schema]
    definitions: dict[str, Schema]


def schemas_of(events: Iterable[EventSignal[Any]], ref_template: str) -> Schemas:
    """Return the schemas of the contexts of events.

    Args:
        events: the signals of the events.
        ref_template: where the definitions will be, with `{model}` for the name of one.
    """
    models = {event.name: event.context_model for event in events}
    complete = {model: None for model in models.values() if model and _is_complete(model)}
    by_model, document = models_json_schema(
        [(model, "serialization") for model in complete],
        ref_template=ref_template,
        schema_generator=_Generator,
    )
    contexts = {
        name: by_model[model, "serialization"]
        if model in complete
        else {**_LOOSE, **({} if model is None else _UNDEFINED)}
        for name, model in models.items()
    }
    return Schemas(contexts, _as_json(document.get("$defs", {})))


def _is_complete(model: type[Any]) -> bool:
    """Whether all names in a model's annotations are defined; else it can make no context."""
    model.model_rebuild(raise_errors=False)
    return bool(model.__pydantic_complete__)


class _Generator(GenerateJsonSchema):
    """Makes schemas of what `model_dump_json` writes, where pydantic's own would refuse some of it.

    pydantic's mode is "serialization", because the readers of the JSON are in other processes. The
    schema of the mode "validation" describes what makes a context. It would refuse computed fields
    and the names that serializers write.
    """

    @contextmanager
    def _spelled_for(
        self, schema: core_schema.ModelSchema | core_schema.DataclassSchema
    ) -> Iterator[None]:
        """Use the aliases of a class in the block if it is configured to write them."""
        before = self.by_alias
        self.by_alias = bool(schema.get("config", {}).get("serialize_by_alias"))
        try:
            yield
        finally:
            self.by_alias = before

    def model_schema(self, schema: core_schema.ModelSchema) -> Schema:
        with self._spelled_for(schema):
            return super().model_schema(schema)

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> Schema:
        with self._spelled_for(schema):
            return _closed(super().dataclass_schema(schema), schema)

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> Schema:
        return _closed(super().typed_dict_schema(schema), schema)

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> Schema:
        """Describe what is written, such as 1E+2, which older versions of pydantic refuse."""
        text: Schema = {"type": "string"}
        return text if schema.get("allow_inf_nan") else {**text, "pattern": _DECIMAL}

    def ser_schema(self, schema: Any) -> Schema | None:
        """Describe what a serializer returns; pydantic takes it for the field's type if unsaid."""
        described = super().ser_schema(schema)
        is_function = schema["type"] in ("function-plain", "function-wrap")
        return {**_ANYTHING} if described is None and is_function else described

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Schema:  # noqa: ARG002  # pydantic's signature
        """Accept any value where JSON Schema cannot say more."""
        return {**_ANYTHING}

    def emit_warning(self, kind: Any, detail: str) -> None:
        """Say nothing of a default that cannot be written as JSON; it is left out."""


def _closed(
    described: Schema, schema: core_schema.DataclassSchema | core_schema.TypedDictSchema
) -> Schema:
    """Refuse unknown keys if the model around a class does; older pydantic versions forget it."""
    if schema.get("config", {}).get("extra_fields_behavior") == "forbid":
        described.setdefault("additionalProperties", False)
    return described


def _as_json(value: Any) -> Any:
    """Return a copy of a schema without infinite numbers and NaN, which JSON does not have.

    A bound or a default that is one of these is left out.
    """
    if isinstance(value, dict):
        return {key: _as_json(it) for key, it in value.items() if not _is_no_json(it)}
    if isinstance(value, list):
        return [None if _is_no_json(it) else _as_json(it) for it in value]
    return value


def _is_no_json(value: object) -> bool:
    return isinstance(value, float) and not isfinite(value)
