"""Finding out by which keywords a model takes its fields: by name, or by an alias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import AliasChoices, AliasGenerator, AliasPath, BaseModel, ConfigDict

__all__ = ["alias_paths", "is_given_by_alias", "spelled_for", "spellings_of", "value_at"]

_READS_BY_NAME = "validate_by_name" in ConfigDict.__optional_keys__  # since pydantic 2.11

_NOTHING: Any = object()


def spellings_of(model: type[BaseModel], name: str) -> tuple[str, ...]:
    """Return the keywords by which a field can be given, the recommended one first."""
    config: Mapping[str, Any] = model.model_config
    by_name = config.get("validate_by_name") if _READS_BY_NAME else None
    by_alias = config.get("validate_by_alias", True)
    if by_name is None:  # the older option decides then, and also allows aliases
        by_name = config.get("populate_by_name")
        by_alias = by_alias or by_name is not None
    spelled = [name] if by_name or not by_alias else []
    if by_alias:
        spelled += [path[0] for path in alias_paths(model, name) if len(path) == 1]
    return tuple(dict.fromkeys(spelled))


def spelled_for(model: type[BaseModel], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of fields under the keywords by which a model takes them."""
    keywords: dict[str, Any] = {}
    for name, value in fields.items():
        spelled = spellings_of(model, name) if name in model.model_fields else ()
        keywords[spelled[0] if spelled else name] = value
    return keywords


def is_given_by_alias(model: type[BaseModel], name: str, keywords: Mapping[str, Any]) -> bool:
    """Whether keywords give a field by one of its aliases."""
    paths = alias_paths(model, name)
    return any(value_at(keywords, path) is not _NOTHING for path in paths if path != (name,))


def value_at(value: Any, path: tuple[Any, ...]) -> Any:
    """Return the value at the path of an alias, or `_NOTHING`."""
    try:
        for step in path:
            value = value[step]
    except (LookupError, TypeError):
        return _NOTHING
    return value


def alias_paths(model: type[BaseModel], name: str) -> list[tuple[Any, ...]]:
    """Return the paths at which validation looks for a field: its aliases, or else its name."""
    alias = model.model_fields[name].validation_alias
    generate: Any = model.model_config.get("alias_generator")
    if alias is None and generate is not None:  # pragma: no cover  # of pydantic before 2.10
        # This pydantic calls the generator only when it builds the model.
        if isinstance(generate, AliasGenerator):
            plain, alias, _ = generate.generate_aliases(name)
            alias = alias or plain
        else:
            alias = generate(name)
    if alias is None:
        return [(name,)]
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return [tuple(it.path) if isinstance(it, AliasPath) else (it,) for it in choices]
