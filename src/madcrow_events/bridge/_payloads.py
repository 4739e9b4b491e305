"""Which JSON Schema the payload of an event has: that of what an outbox writes.

It writes what makes an equal context again: no computed fields, and names in the place of aliases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from madcrow_events.catalog._schemas import Generator

if TYPE_CHECKING:
    from pydantic_core import core_schema

    from madcrow_events.catalog._walking import Schema

__all__ = ["PayloadGenerator"]


class PayloadGenerator(Generator):
    """Makes schemas of payloads, where the catalogue's own describe `model_dump_json()`.

    A class that can be read by its aliases only is described with them. What the schema does not
    say: the others in its payload are written with theirs, too.
    """

    def has_aliases(self, config: core_schema.CoreConfig) -> bool:
        """Whether a class of this configuration can be read by its aliases only."""
        return not (config.get("validate_by_name") or config.get("populate_by_name"))

    def model_fields_schema(self, schema: core_schema.ModelFieldsSchema) -> Schema:
        """Describe the fields of a model."""
        return super().model_fields_schema({**schema, "computed_fields": []})

    def dataclass_args_schema(self, schema: core_schema.DataclassArgsSchema) -> Schema:
        """Describe the fields of a dataclass."""
        return super().dataclass_args_schema({**schema, "computed_fields": []})

    def json_schema(self, schema: core_schema.JsonSchema) -> Schema:  # noqa: ARG002  # pydantic's
        """Describe text with JSON, which stays a text."""
        return {"type": "string", "contentMediaType": "application/json"}
