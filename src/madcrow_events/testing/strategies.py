"""Hypothesis strategies for contexts (extra: testing)."""

from __future__ import annotations

import datetime as dt
import functools
import re
import types
import typing
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin

try:
    from hypothesis import Phase, find, reject, settings
    from hypothesis import strategies as st
    from hypothesis.errors import HypothesisException, InvalidArgument
except ImportError as _error:  # pragma: no cover  # the tests need it themselves
    raise ImportError(
        "madcrow_events.testing.strategies needs Hypothesis: pip install 'madcrow-events[testing]'"
    ) from _error

import pydantic
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from typing_extensions import TypeAliasType

from madcrow_events._aliases import spellings_of
from madcrow_events._text import type_name
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.models import BaseEventContext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from hypothesis.strategies import SearchStrategy

__all__ = ["contexts"]

ContextT = TypeVar("ContextT", bound=BaseEventContext)
_ModelT = TypeVar("_ModelT", bound=BaseModel)

# From Python 3.12 on there may be a second type.
_ALIASES = (TypeAliasType, getattr(typing, "TypeAliasType", TypeAliasType))

_HOPELESS = 25  # contexts that were refused, with none that was valid

_AWARE = st.datetimes(timezones=st.just(dt.UTC))
_YEAR_2000 = dt.datetime(2000, 1, 1)  # noqa: DTZ001  # Hypothesis takes the time zone as another argument
_YEAR_3000 = dt.datetime(3000, 1, 1)  # noqa: DTZ001  # Hypothesis takes the time zone as another argument

# Types that Hypothesis does not know, or for which it hardly ever draws valid values.
_KNOWN: dict[Any, SearchStrategy[Any]] = {
    dt.datetime: _AWARE,
    Any: st.none() | st.booleans() | st.integers() | st.text(),
    pydantic.AwareDatetime: _AWARE,
    pydantic.NaiveDatetime: st.datetimes(),
    pydantic.PastDatetime: st.datetimes(max_value=_YEAR_2000),
    pydantic.FutureDatetime: st.datetimes(min_value=_YEAR_3000),
    pydantic.PastDate: st.dates(max_value=_YEAR_2000.date()),
    pydantic.FutureDate: st.dates(min_value=_YEAR_3000.date()),
}


def contexts(model: type[ContextT], /, **fields: SearchStrategy[Any]) -> SearchStrategy[ContextT]:
    """Return a Hypothesis strategy for valid contexts of a model.

    Each field is drawn by its annotation and its limits, such as `Field(ge=0)` or `pattern=...`.
    This includes the fields of models within the model. A field with a default is sometimes left
    out. Values that a validator refuses are not drawn.

    Args:
        model: the context model.
        **fields: strategies for single fields, by their names. A field needs one if Hypothesis does
            not know its type, or if a validator lets few values through.

    Returns:
        The strategy.

    Raises:
        InvalidOptionError: the model is not a context model, it has no such field, or a field needs
            a strategy. If a validator lets too few values through, the error comes when values are
            drawn.

    Example:
        ```python
        from hypothesis import given, strategies
        from madcrow_events import BaseEventContext
        from madcrow_events.testing.strategies import contexts


        class OrderPlaced(BaseEventContext):
            total: float


        @given(contexts(OrderPlaced, total=strategies.floats(0, 1000)))
        def test_an_order_has_a_total(order: OrderPlaced) -> None:
            assert 0 <= order.total <= 1000


        test_an_order_has_a_total()
        ```
    """
    given: object = model
    if not (isinstance(given, type) and issubclass(given, BaseEventContext)):
        raise InvalidOptionError(
            "contexts() takes a context model, such as LoginEventContext", option="model"
        )
    for name, strategy in fields.items():
        if name not in model.model_fields:
            raise InvalidOptionError(f"{type_name(model)} has no field {name}", option=name)
        if not isinstance(strategy, st.SearchStrategy):
            raise InvalidOptionError(
                f"{name} must be a strategy, such as st.just({strategy!r})", option=name
            )
    return _instances(model, fields)


def simplest(model: type[ContextT], /) -> ContextT:
    """Return the context of a model that Hypothesis considers the simplest.

    Raises:
        InvalidOptionError: no context can be made up.
    """
    first = settings(
        database=None, phases=[Phase.generate]
    )  # the first one is the one it would shrink to
    try:
        return find(contexts(model), lambda _: True, settings=first)
    except HypothesisException as error:
        raise InvalidOptionError(
            f"no context of {type_name(model)} can be made up: too few values are valid",
            option="model",
        ) from error


def _instances(
    model: type[_ModelT], fields: dict[str, SearchStrategy[Any]]
) -> SearchStrategy[_ModelT]:
    required: dict[str, SearchStrategy[Any]] = {}
    optional: dict[str, SearchStrategy[Any]] = {}
    for name, field in model.model_fields.items():
        strategy = fields.get(name)
        if strategy is None:
            try:
                strategy = _of_type(field.annotation, field.metadata)
            except HypothesisException as error:
                raise InvalidOptionError(_needs_strategy(model, name), option=name) from error
        is_needed = field.is_required() or name in fields
        (required if is_needed else optional)[(*spellings_of(model, name), name)[0]] = strategy
    refused: Counter[str] = Counter()  # by field, how many contexts were refused
    tried = Counter(valid=0, invalid=0)

    def build(values: dict[str, Any]) -> _ModelT:
        try:
            instance = model(**values)
        except ValidationError as error:
            refused.update(str(problem["loc"][0]) for problem in error.errors() if problem["loc"])
            tried["invalid"] += 1
            if not tried["valid"] and tried["invalid"] >= _HOPELESS:
                name = refused.most_common(1)[0][0]
                raise InvalidOptionError(_needs_strategy(model, name), option=name) from None
            reject()
        tried["valid"] += 1
        return instance

    return st.fixed_dictionaries(required, optional=optional).map(build)


def _needs_strategy(model: type[BaseModel], name: str) -> str:
    return (
        f"valid values of {type_name(model)}.{name} cannot be made up: give a strategy, as in "
        f"contexts({type_name(model)}, {name}=st.just(...))"
    )


def _of_type(annotation: Any, limits: Iterable[Any] = ()) -> SearchStrategy[Any]:
    """Return a strategy for values of a type within limits.

    Raises:
        HypothesisException: Hypothesis does not know the type.
    """
    limits = [*_flat(limits)]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, _ALIASES):
        return _of_type(annotation.__value__, limits)
    if origin is Annotated:
        return _of_type(arguments[0], [*arguments[1:], *limits])
    if origin in (Union, types.UnionType):
        return st.one_of([_of_type(argument, limits) for argument in arguments])
    if origin in (list, set, frozenset, tuple, dict):
        return _containers(origin, arguments, limits)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _nested(annotation)
    return _of_plain_type(annotation, limits)


@functools.cache  # one for each model, so that Hypothesis notices a model that contains itself
def _nested(model: type[BaseModel]) -> SearchStrategy[BaseModel]:
    return st.deferred(lambda: _instances(model, {}))


def _of_plain_type(annotation: Any, limits: list[Any]) -> SearchStrategy[Any]:
    pattern = _limit(limits, "pattern")
    if annotation is str and pattern is not None:
        try:
            matching = st.from_regex(re.compile(pattern))
        except re.error as error:
            raise InvalidArgument(f"Python does not know the pattern: {error}") from error
        return matching.filter(_validity(annotation, limits))
    if annotation is Decimal:
        return _decimals(limits)
    if annotation in _KNOWN:
        return _KNOWN[annotation]
    for limit in limits:
        if type(limit).__module__ == "annotated_types":  # Hypothesis knows no others
            annotation = Annotated[annotation, limit]
    strategy: SearchStrategy[Any] = st.from_type(annotation)
    strategy.validate()
    return strategy


def _validity(annotation: Any, limits: list[Any]) -> Callable[[Any], bool]:
    """Return a function that checks with pydantic whether a value is within the limits."""
    for limit in limits:
        annotation = Annotated[annotation, limit]
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)

    def is_valid(value: object) -> bool:
        try:
            adapter.validate_python(value)
        except ValidationError:
            return False
        return True

    return is_valid


def _flat(limits: Iterable[Any]) -> Iterator[Any]:
    for limit in limits:
        if isinstance(limit, FieldInfo):
            yield from _flat(limit.metadata)
        elif getattr(limit, "__is_annotated_types_grouped_metadata__", False):
            yield from _flat(limit)
        else:
            yield limit


def _limit(limits: list[Any], *names: str) -> Any:
    """Return the value that the limits have under one of these names, or None."""
    values = (getattr(limit, name, None) for limit in limits for name in names)
    return next((value for value in values if value is not None), None)


def _containers(origin: Any, arguments: Any, limits: list[Any]) -> SearchStrategy[Any]:
    sizes = {
        "min_size": _limit(limits, "min_length") or 0,
        "max_size": _limit(limits, "max_length"),
    }
    if origin is dict:
        return st.dictionaries(*map(_of_type, arguments), **sizes)
    if origin is tuple and Ellipsis not in arguments:
        return st.tuples(*map(_of_type, arguments))
    items = _of_type(arguments[0])
    return st.lists(items, **sizes, unique=origin in (set, frozenset)).map(origin)


def _decimals(limits: list[Any]) -> SearchStrategy[Decimal]:
    least, most = _limit(limits, "ge", "gt"), _limit(limits, "le", "lt")
    places, digits = _limit(limits, "decimal_places"), _limit(limits, "max_digits")
    if digits is not None:
        places = 0 if places is None else places
        bound = Decimal(10) ** (digits - places) - Decimal(10) ** -places
        least = -bound if least is None else max(least, -bound)
        most = bound if most is None else min(most, bound)
    return st.decimals(least, most, allow_nan=False, allow_infinity=False, places=places)
