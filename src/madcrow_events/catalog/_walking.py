"""Changing the schemas that are inside of a schema."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Schema", "with_inner_schemas"]

Schema = dict[str, Any]
"""A JSON Schema, as what `json.dumps` takes."""

# The keywords of JSON Schema by what their values hold; no value of another one holds a schema.
_HOLD_ONE_SCHEMA = {
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
}
_HOLD_A_LIST_OF_SCHEMAS = {"allOf", "anyOf", "items", "oneOf", "prefixItems"}
_HOLD_SCHEMAS_BY_NAME = {"patternProperties", "properties"}


def with_inner_schemas(schema: Schema, change: Callable[[Schema], Schema]) -> Schema:
    """Return a copy of a schema, in which each schema directly inside of it is changed.

    Args:
        schema: the schema.
        change: takes an inner schema, and returns what stands in its place.
    """
    return {keyword: _changed(keyword, value, change) for keyword, value in schema.items()}


def _changed(keyword: str, value: Any, change: Callable[[Schema], Schema]) -> Any:
    if isinstance(value, list) and keyword in _HOLD_A_LIST_OF_SCHEMAS:
        return [_if_schema(it, change) for it in value]
    if isinstance(value, dict) and keyword in _HOLD_SCHEMAS_BY_NAME:
        return {name: _if_schema(it, change) for name, it in value.items()}
    return _if_schema(value, change) if keyword in _HOLD_ONE_SCHEMA else value


def _if_schema(value: Any, change: Callable[[Schema], Schema]) -> Any:
    """Return a schema changed; what is none, such as `True`, as it is."""
    return change(value) if isinstance(value, dict) else value
