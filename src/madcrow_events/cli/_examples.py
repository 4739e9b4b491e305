"""Making an example that fits a JSON Schema, with its required properties."""

from __future__ import annotations

from math import ceil, inf, isfinite
from typing import Any, Final

__all__ = ["example_of"]

_TEXTS: Final = {
    "date": "2030-01-31",
    "date-time": "2030-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "ada@example.com",
    "uuid": "12345678-1234-4678-9234-567812345678",
    "uri": "https://example.com/",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "binary": "text",
}
"""Texts of the formats that JSON Schema names."""

_DEEPEST: Final = 8


def example_of(schema: dict[str, Any], definitions: dict[str, Any], depth: int = 0) -> Any:
    """Return a value that a schema accepts, as far as its types, bounds and formats tell.

    Args:
        schema: the schema.
        definitions: the schemas that it refers to, by name.
        depth: how deeply it is nested in the one that was asked for.
    """
    schema = _resolved(schema, definitions)
    for known in ("const", "default"):
        if known in schema:
            return schema[known]
    for several in ("examples", "enum"):
        if schema.get(several):
            return schema[several][0]
    for union in ("anyOf", "oneOf", "allOf"):
        if schema.get(union) and depth < _DEEPEST:
            return example_of(schema[union][0], definitions, depth + 1)
    kind = schema.get("type")
    if kind == "object" and depth < _DEEPEST:
        properties = schema.get("properties", {})
        return {
            name: example_of(properties[name], definitions, depth + 1)
            for name in schema.get("required", ())
            if name in properties
        }
    if kind == "array" and depth < _DEEPEST:
        items = [*schema.get("prefixItems", ())]
        items += [schema.get("items", {})] * (schema.get("minItems", 0) - len(items))
        return [example_of(it, definitions, depth + 1) for it in items]
    return _plain(schema, kind)


def _resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "")
    return {**definitions[reference.rpartition("/")[2]], **schema} if reference else schema


def _plain(schema: dict[str, Any], kind: Any) -> Any:
    if kind in {"integer", "number"}:
        return _number(schema, 1 if kind == "integer" else 1.0)
    if kind == "string":
        text = _TEXTS.get(schema.get("format", "")) or str(schema.get("title", "text")).lower()
        return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]
    return {"boolean": True, "object": {}, "array": []}.get(kind)


def _number(schema: dict[str, Any], usual: float) -> Any:
    """Return the first number that comes to mind and fits; the usual one if none does."""
    lowest = max(schema.get("minimum", -inf), schema.get("exclusiveMinimum", -inf))
    highest = min(schema.get("maximum", inf), schema.get("exclusiveMaximum", inf))
    # What is halfway fits narrow bounds, such as those of a share.
    tried = [usual, lowest, highest, lowest + 1, highest - 1, (lowest + highest) / 2]
    numbers = [it for it in tried if isfinite(it)]
    step = schema.get("multipleOf")
    if step is not None:
        steps = [ceil(it / step) for it in numbers]
        numbers = [step * count for it in steps for count in (it, it + 1, it - 1)]
    kind = type(usual)
    return next((kind(it) for it in numbers if kind(it) == it and _is_within(it, schema)), usual)


def _is_within(number: float, schema: dict[str, Any]) -> bool:
    bounds = (
        schema.get("minimum", -inf) <= number <= schema.get("maximum", inf),
        schema.get("exclusiveMinimum", -inf) < number < schema.get("exclusiveMaximum", inf),
    )
    return all(bounds)
