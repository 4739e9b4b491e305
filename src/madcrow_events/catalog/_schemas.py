"""Which JSON Schema the context of an event has: that of what its model writes as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import Flag
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import to_jsonable_python

from madcrow_events._interrupts import is_interrupt
from madcrow_events.catalog._walking import Schema, with_inner_schemas

if TYPE_CHECKING:
    from pydantic_core import core_schema

    from madcrow_events.signals import EventSignal

__all__ = ["Generator", "Schemas", "schemas_of"]

_ANYTHING: Schema = {"description": "Any value: JSON Schema cannot describe its type."}
_UNDEFINED: Schema = {"description": "Any object: the model uses a name that is not defined."}
_FAILED: Schema = {"description": "Any object: the schema of the model could not be made."}
_NULL: Schema = {"type": "null"}
_LOOSE: Schema = {"type": "object"}
_DECIMAL = r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$"

_OF_ONE_LANGUAGE: Final = re.compile(r"\(\?[^:=!<]|\(\?<[^=!]|\\[AzZpPaQEGUx]|\[\[|&&|\|\||~~|--")
"""What Rust's, Python's or JavaScript's patterns do not have, or read in another way."""


class Schemas(NamedTuple):
    """The schemas of some events.

    Attributes:
        contexts: for each event, by its name, the schema of its context: a reference to one of the
            definitions, or any object.
        definitions: the schemas of classes, by names that differ for different classes.
    """

    contexts: dict[str, Schema]
    definitions: dict[str, Schema]


class Generator(GenerateJsonSchema):
    """Makes schemas of what `model_dump_json` writes, where pydantic's own would refuse some of it.

    pydantic's mode is "serialization", because the readers of the JSON are in other processes. The
    schema of the mode "validation" describes what makes a context. It would refuse computed fields
    and the names that serializers write.
    """

    def has_aliases(self, config: core_schema.CoreConfig) -> bool:
        """Whether a class of this configuration is written with its aliases."""
        return bool(config.get("serialize_by_alias"))

    @contextmanager
    def _spelled_for(
        self, schema: core_schema.ModelSchema | core_schema.DataclassSchema
    ) -> Iterator[None]:
        """Use the aliases of a class in the block if they are written."""
        before = self.by_alias
        self.by_alias = self.has_aliases(schema.get("config", {}))
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

    def float_schema(self, schema: core_schema.FloatSchema) -> Schema:
        """Describe what is written of NaN, too, and no steps, because 0.3 is no multiple of 0.1."""
        number = _without(super().float_schema(schema), "multipleOf")
        if self._config.ser_json_inf_nan != "strings" or not schema.get(
            "allow_inf_nan", self._config.allow_inf_nan
        ):
            return number
        return {"anyOf": [number, {"enum": ["NaN", "Infinity", "-Infinity"]}]}

    def bytes_schema(self, schema: core_schema.BytesSchema) -> Schema:
        """Describe no lengths, because the text that is written has another one."""
        return _without(super().bytes_schema(schema), "minLength", "maxLength")

    def str_schema(self, schema: core_schema.StringSchema) -> Schema:
        """Describe no compiled pattern, because its flags may let it fit more."""
        text = super().str_schema(schema)
        return text if isinstance(schema.get("pattern", ""), str) else _without(text, "pattern")

    def enum_schema(self, schema: core_schema.EnumSchema) -> Schema:
        """Describe flags by their type, because they can be combined."""
        described = super().enum_schema(schema)
        if not issubclass(schema["cls"], Flag):
            return described
        return {**_without(described, "enum", "const"), "type": "integer"}

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Schema:
        """Accept null if it is the default; pydantic does not validate defaults."""
        described = super().default_schema(schema)
        if described.get("default", "") is not None or _takes_null(described):
            return described
        return {"anyOf": [_without(described, "default"), {**_NULL}], "default": None}

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


def schemas_of(
    events: Iterable[EventSignal[Any]], ref_template: str, generator: type[Generator] = Generator
) -> Schemas:
    """Return the schemas of the contexts of events.

    Args:
        events: the signals of the events.
        ref_template: where the definitions will be, with `{model}` for the name of one.
        generator: makes the schemas.
    """
    models = {event.name: event.context_model for event in events}
    complete = {model: None for model in models.values() if model and _is_complete(model)}
    try:
        references, definitions = _made(complete, ref_template, generator)
    except Exception as error:  # the code of a model's author may raise anything
        if is_interrupt(error):
            raise
        good = [model for model in complete if _is_describable(model, generator)]
        references, definitions = _made(good, ref_template, generator)
    contexts = {}
    for name, model in models.items():
        if model is None:
            contexts[name] = {**_LOOSE}
        else:
            instead = _FAILED if model in complete else _UNDEFINED
            contexts[name] = references.get(model) or {**_LOOSE, **instead}
    return Schemas(contexts, definitions)


def _made(
    models: Iterable[type[Any]], ref_template: str, generator: type[Generator]
) -> tuple[dict[type[Any], Schema], dict[str, Schema]]:
    """Return the schemas of models, and the definitions to which these refer."""
    by_model, document = models_json_schema(
        [(model, "serialization") for model in models],
        ref_template=ref_template,
        schema_generator=generator,
    )
    definitions = _as_json(document.get("$defs", {}))
    references = {model: _as_json(schema) for (model, _), schema in by_model.items()}
    return (
        {model: _as_written(schema, definitions) for model, schema in references.items()},
        {name: _as_written(schema, definitions) for name, schema in definitions.items()},
    )


def _is_describable(model: type[Any], generator: type[Generator]) -> bool:
    """Whether the schema of a model can be made without an error."""
    try:
        _made([model], "{model}", generator)
    except Exception as error:
        if is_interrupt(error):
            raise
        return False
    return True


def _is_complete(model: type[Any]) -> bool:
    """Whether all names in a model's annotations are defined; else it can make no context."""
    model.model_rebuild(raise_errors=False)
    return bool(model.__pydantic_complete__)


def _closed(
    described: Schema, schema: core_schema.DataclassSchema | core_schema.TypedDictSchema
) -> Schema:
    """Refuse unknown keys if the model around a class does; older pydantic versions forget it."""
    if schema.get("config", {}).get("extra_fields_behavior") == "forbid":
        described.setdefault("additionalProperties", False)
    return described


def _without(schema: Schema, *keywords: str) -> Schema:
    return {keyword: value for keyword, value in schema.items() if keyword not in keywords}


def _takes_null(schema: Schema) -> bool:
    """Whether it is plain that a schema accepts null."""
    if "anyOf" in schema:
        return any(_takes_null(it) for it in schema["anyOf"])
    if "enum" in schema:
        return None in schema["enum"]
    return schema.get("type") == "null" or not {"type", "$ref", "allOf", "oneOf"} & schema.keys()


def _as_written(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """Return a schema without what would refuse a text that is written, or spoil the document."""
    written = with_inner_schemas(schema, partial(_as_written, definitions=definitions))
    if not _is_common(written.get("pattern", "")):
        del written["pattern"]
    if written.get("format") == "password" and written.get("writeOnly"):
        written = _without(written, "minLength", "maxLength")  # each secret is ten asterisks
    if not _are_texts(written.get("propertyNames", {}), definitions):
        del written["propertyNames"]  # numbers, which are written as texts
    named = written.get("patternProperties", {})
    if not all(map(_is_common, named)):
        del written["patternProperties"]
        written["additionalProperties"] = {"anyOf": [*named.values()]}
    return written


def _is_common(pattern: str) -> bool:
    """Whether a pattern means the same in the usual languages of patterns."""
    if _OF_ONE_LANGUAGE.search(pattern.replace(r"\\", "")):
        return False
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _are_texts(names: Schema, definitions: dict[str, Schema]) -> bool:
    """Whether a schema of the keys of a dictionary describes texts."""
    if "$ref" in names:
        names = definitions[names["$ref"].rpartition("/")[2]]
    listed = all(isinstance(it, str) for it in names.get("enum", ()))
    return listed and names.get("type", "string") == "string" and "anyOf" not in names


def _as_json(value: Any) -> Any:
    """Return a copy of a schema as JSON, without infinite numbers and NaN.

    A bound or a default that is one of these is left out. Another value that JSON does not have,
    such as a `Decimal` in an example, is as pydantic writes it, or else its text.
    """
    return _finite(to_jsonable_python(value, fallback=str, bytes_mode="base64"))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(it) for key, it in value.items() if not _is_no_json(it)}
    if isinstance(value, list):
        return [None if _is_no_json(it) else _finite(it) for it in value]
    return value


def _is_no_json(value: object) -> bool:
    return isinstance(value, float) and not isfinite(value)
