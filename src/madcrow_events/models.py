"""Event contexts, the frozen pydantic models that events carry.

`BaseEventContext` is the base class of every typed context, yours included. The contexts of the
built-in events are below. A model's validator is built at its first use, which keeps the import
fast. There is no `from __future__ import annotations` here: pydantic would have to compile the text
of each annotation at import.
"""

import weakref
from collections.abc import Callable, Hashable, Mapping
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    WrapValidator,
    field_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from madcrow_events._aliases import (
    alias_paths,
    is_given_by_alias,
    spellings_of,
)
from madcrow_events._forks import renew_after_fork
from madcrow_events._locks import Lock
from madcrow_events._text import type_name

__all__ = [
    "AccountActivatedEventContext",
    "AccountBannedEventContext",
    "AccountClosedEventContext",
    "BaseEventContext",
    "GenericEventContext",
    "HandlerFailedEventContext",
    "LoginEventContext",
    "LoginFailedEventContext",
    "LogoutEventContext",
    "PasswordChangedEventContext",
    "RegistrationEventContext",
    "SessionExpiredEventContext",
    "SuspiciousActivityEventContext",
    "SystemShutdownEventContext",
    "SystemStartupEventContext",
    "TokenRefreshedEventContext",
]

RESERVED_FIELDS = frozenset({"self", "sender"})
"""The names that no field may have, because the call of a handler uses them."""

SCOPE_FIELDS = ("request_id", "user_agent", "ip_address")
"""The fields that `event_scope` can fill in."""


def _in_utc(moment: datetime) -> datetime:
    if moment.utcoffset() is None:
        raise PydanticCustomError(
            "timezone_naive",
            "timestamp has no time zone: give an aware one, such as datetime.now(UTC)",
        )
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError(
            "timestamp_out_of_range", "timestamp is outside of the years 1 to 9999 in UTC"
        ) from None


def _now() -> datetime:
    return datetime.now(UTC)


def _as_given(value: object, validate: Callable[[Any], Any]) -> Any:
    """Return an id unchanged, but turn the text of a UUID in JSON into a UUID."""
    if isinstance(value, bool) or not isinstance(value, UUID | int | str):
        raise PydanticCustomError("account_id", "an id is a UUID, an int or a str")
    valid = validate(value)
    return value if isinstance(value, type(valid)) else valid


AccountId = Annotated[UUID | int | str, WrapValidator(_as_given)]
"""The types that may identify an account; values are never converted."""


class _Building:
    """The lock under which models are built; pydantic itself lets several threads build at once.

    Building a model runs code of its author, which may wait for another thread, as an import does.
    So no thread waits for the lock without end.
    """

    wait: float = 5.0  # seconds

    def __init__(self) -> None:
        self._renew_after_fork()
        renew_after_fork(self)

    def _renew_after_fork(self) -> None:
        self.lock = Lock()


_building = _Building()


class _Kept:
    """What is remembered of a model, in an attribute of the model.

    Attributes:
        model: the model, weakly. A class made from a copy of that model's attributes has this
            object, too, but it is not for that class.
        things: what is remembered.
    """

    __slots__ = ("model", "things")

    def __init__(self, model: weakref.ref[type[Any]] | None = None) -> None:
        self.model: weakref.ref[type[Any]] | None = model
        self.things: dict[Any, Any] = {}

    def __reduce__(self) -> tuple[type["_Kept"], tuple[()]]:
        """Be empty in another process, to which a class may be sent with its attributes."""
        return _Kept, ()


class BaseEventContext(BaseModel):
    """The base class of all context models: when the event happened, and which request caused it.

    A context cannot be changed, and takes no unknown fields. Its validation errors do not show the
    values that were given. No field may be called `sender` or `self`.

    Attributes:
        timestamp: when the event happened, as a `datetime` in UTC; by default, when the context was
            made. A time in another time zone is converted.
        request_id: the id of the request that caused the event, or None.
        user_agent: what the client says of itself, or None.
        ip_address: the network address of the client, or None.

    Raises:
        pydantic.ValidationError: a field is missing, is unknown or has the wrong type, or the
            timestamp has no time zone.

    Example:
        ```python
        from madcrow_events import BaseEventContext


        class OrderPlaced(BaseEventContext):
            order_id: int
            total: float


        order = OrderPlaced(order_id=7, total=12.5)
        print(order.order_id, order.timestamp.tzinfo, order.request_id)
        ```

        ```text
        7 UTC None
        ```
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        populate_by_name=True,
        defer_build=True,
    )

    timestamp: Annotated[datetime, AfterValidator(_in_utc)] = Field(
        default_factory=_now, description="When it happened, in UTC"
    )
    request_id: str | None = Field(default=None, description="The request that caused it")
    user_agent: str | None = Field(default=None, description="The client's user agent")
    ip_address: str | None = Field(default=None, description="The client's address")

    _field_names: ClassVar[tuple[str, ...]] = ()
    _field_set: ClassVar[frozenset[str]] = frozenset()
    # How many attributes a context has if all are fields; -1 if there may be extra fields.
    _plain_size: ClassVar[int] = -1
    _scope_fields: ClassVar[tuple[str, ...]] = SCOPE_FIELDS
    # The keywords by which a loose emission gives these; empty if each has its name only.
    _scope_spellings: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    __madcrow_kept__: ClassVar[_Kept | None] = None

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        """Note the names of the fields once, so that no emission has to look for them."""
        super().__pydantic_init_subclass__(**kwargs)
        note_fields(cls)

    @classmethod
    def model_rebuild(
        cls,
        *,
        force: bool = False,
        raise_errors: bool = True,
        _parent_namespace_depth: int = 2,
        _types_namespace: Any = None,
    ) -> bool | None:
        """Build the model's validator. pydantic calls this when the model is first used.

        Unlike pydantic's own method, it builds one model at a time, whatever the number of threads.

        Args:
            force: as for `pydantic.BaseModel.model_rebuild`.
            raise_errors: as for `pydantic.BaseModel.model_rebuild`.

        Returns:
            As `pydantic.BaseModel.model_rebuild` does.
        """
        rebuild, built = super().model_rebuild, []

        def build(frames: int = 3) -> None:
            """Build the validator.

            Args:
                frames: how many frames this call lies below the caller of `model_rebuild`, whose
                    local names the annotations may use.
            """
            is_built = rebuild(
                force=force,
                raise_errors=raise_errors,
                _parent_namespace_depth=_parent_namespace_depth + frames,
                _types_namespace=_types_namespace,
            )
            built.append(is_built)

        if not _building.lock.run_if_free(build, _building.wait):
            build(2)
        return built[0]

    if not TYPE_CHECKING:  # pragma: no branch  # type checkers see no such method in frozen models

        def __setattr__(self, name: str, value: object) -> None:
            """Refuse to change a field; unlike pydantic's, the error does not show the value."""
            if name.startswith("_"):
                super().__setattr__(name, value)
                return
            error = InitErrorDetails(type="frozen_instance", loc=(name,), input=value)
            title = type_name(type(self))
            raise ValidationError.from_exception_data(title, [error], hide_input=True)

    def _keywords(self) -> dict[str, Any]:
        """Return the field values by name; the caller may not change the dictionary."""
        values: dict[str, Any] = vars(self)
        if len(values) == self._plain_size:
            return values
        # A cached_property of a subclass is in `__dict__` too, and is not a field.
        try:
            fields = {name: values[name] for name in self._field_names}
        except KeyError as error:  # for example if made by model_construct
            message = f"a context has no value for {error.args[0]}: make it with all fields"
            raise AttributeError(message, name=error.args[0], obj=self) from None
        # There is none if an `__init__` does not call that of its base class.
        extra = getattr(self, "__pydantic_extra__", None)
        return {**extra, **fields} if extra else fields


def _is_plain_text(model: type[BaseEventContext], name: str) -> bool:
    """Whether a field takes any text, unchecked and unchanged."""
    field, decorators = model.model_fields[name], model.__pydantic_decorators__
    checked = {
        it
        for validators in (decorators.field_validators, decorators.validators)
        for validator in validators.values()
        for it in validator.info.fields
    }
    return (
        field.annotation in (str, str | None)
        and not field.metadata
        and checked.isdisjoint({name, "*"})
        and not any(map(model.model_config.get, ("str_min_length", "str_max_length")))
    )


def note_fields(model: type[BaseEventContext]) -> None:
    """Note the names of a model's fields, unless they are noted already.

    They are not if a base class has a hook `__pydantic_init_subclass__` that does not call that of
    `BaseEventContext`. So code that sees a model for the first time calls this, too.
    """
    if vars(model).get("_field_names"):
        return
    model._field_names = tuple(model.model_fields)
    model._field_set = frozenset(model._field_names)
    has_extra = model.model_config.get("extra") == "allow"
    model._plain_size = -1 if has_extra else len(model._field_names)
    # Only fields that take any text: a scope fills its values in unchecked.
    model._scope_fields = tuple(name for name in SCOPE_FIELDS if _is_plain_text(model, name))
    spellings = {name: spellings_of(model, name) for name in model._scope_fields}
    has_others = any(
        spelled != (name,) or alias_paths(model, name) != [(name,)]
        for name, spelled in spellings.items()
    )
    model._scope_spellings = spellings if has_others else {}


note_fields(BaseEventContext)  # the hook runs for subclasses only


def kept_with(model: type[BaseEventContext]) -> dict[Any, Any]:
    """Return a dictionary for what is remembered of a model, which lives as long as the model."""
    kept: _Kept | None = vars(model).get("__madcrow_kept__")
    if kept is None or kept.model is None or kept.model() is not model:
        kept = model.__madcrow_kept__ = _Kept(weakref.ref(model))
    return kept.things


def values_of(context: BaseEventContext) -> dict[str, Any]:
    """Return the field values of a context by name; the caller may not change the dictionary.

    Signals make a new context of them if the model was replaced, because its module ran again.
    """
    return context._keywords()


def prepare(model: type[BaseEventContext]) -> None:
    """Build the model of an event, unless it is of this module, or not yet complete.

    Threads then find it built when they first use it. The models of this module are built at their
    first use, because building them would slow down each import. So are models that are declared
    while another thread builds one: that thread may wait for the import that declares this one.
    """
    if model.__module__ != __name__:
        _building.lock.run_if_free(partial(model.model_rebuild, raise_errors=False))


def is_parametrised_as(class_: type, models: tuple[type, ...]) -> bool:
    """Whether a class is, or derives from, the same parametrised generic as one of the models.

    pydantic keeps `Changed[int]` for each thread, or lets two threads make it at once. So there
    may be several classes that mean the same.
    """
    wanted = [parameters for parameters in map(_parameters_of, models) if parameters]
    return bool(wanted) and any(_parameters_of(base) in wanted for base in class_.__mro__)


def meaning_of(model: type) -> Hashable:
    """Return a key that is the same for each class that means the same parametrised generic."""
    parameters = _parameters_of(model)
    try:
        hash(parameters)
    except TypeError:  # an argument of it cannot be hashed
        return model
    return parameters or model


def _parameters_of(model: type) -> tuple[Any, ...] | None:
    metadata = vars(model).get("__pydantic_generic_metadata__")
    return (metadata["origin"], metadata["args"]) if metadata and metadata["origin"] else None


_set = object.__setattr__  # because models are frozen


def fill_loose(
    model: type[BaseEventContext] | None, keywords: dict[str, Any], fields: Mapping[str, str]
) -> None:
    """Add the fields that a loose emission left out, if the model can take them."""
    model = model or BaseEventContext
    if model._scope_spellings:
        for name, spelled in model._scope_spellings.items():
            if not spelled or name not in fields or name in keywords:
                continue
            if not is_given_by_alias(model, name, keywords):
                keywords[spelled[0]] = fields[name]
        return
    taken = model._scope_fields
    for name in fields:
        if name in taken:
            keywords.setdefault(name, fields[name])


def filled(context: BaseEventContext, fields: Mapping[str, str]) -> BaseEventContext:
    """Return a copy of a context with the fields that it left out; itself if it left out none."""
    taken, given = context._scope_fields, context.__pydantic_fields_set__
    missing = [name for name in fields if name in taken and name not in given]
    if not missing:
        return context
    model = type(context)
    filled: BaseEventContext
    values, names = {**vars(context)}, given.copy()
    for name in missing:
        values[name] = fields[name]
        names.add(name)
    # Not `model_copy`, which a model may override.
    private = getattr(context, "__pydantic_private__", None)
    if context.__pydantic_extra__ is None and private is None:
        # `BaseModel.__copy__` does the same, and takes three times as long.
        filled = model.__new__(model)
        _set(filled, "__pydantic_extra__", None)
        _set(filled, "__pydantic_private__", None)
    else:
        filled = BaseModel.__copy__(context)  # pyright: ignore[reportAssignmentType]
    # A cached_property may have been computed without the missing fields.
    if not context._field_set.issuperset(values):
        for name in values.keys() - context._field_set:
            if isinstance(getattr(model, name, None), cached_property):
                del values[name]
    _set(filled, "__dict__", values)
    _set(filled, "__pydantic_fields_set__", names)
    return filled


def filled_for(
    model: type[BaseEventContext], keywords: Mapping[str, Any], fields: Mapping[str, str]
) -> dict[str, Any]:
    """Return keywords as `fill_loose` fills them in for another model."""
    given = {
        name: value
        for name, value in keywords.items()
        if name not in fields or value is not fields[name]
    }
    fill_loose(model, given, fields)
    return given


class LoginEventContext(BaseEventContext):
    """A user signed in.

    Attributes:
        user_id: the id of the account.
        email: the e-mail address of the account.
        name: the name of the user, or None.
        is_admin: whether the user is an administrator.
        remember_me: whether the user asked to stay signed in.
        session_duration: how long the session will last, in seconds, or None.
    """

    user_id: AccountId
    email: str
    name: str | None = None
    is_admin: bool = False
    remember_me: bool = False
    session_duration: float | None = None


class LogoutEventContext(BaseEventContext):
    """A user signed out.

    Attributes:
        user_id: the id of the account.
        email: the e-mail address of the account.
        session_duration: how long the session lasted, in seconds, or None.
        logout_reason: why the session ended, or None.
    """

    user_id: AccountId
    email: str
    session_duration: float | None = None
    logout_reason: str | None = None


class LoginFailedEventContext(BaseEventContext):
    """Somebody tried to sign in, and was refused.

    Attributes:
        email: the e-mail address that was tried.
        failure_reason: why the attempt was refused.
        attempt_count: the number of failed attempts so far, this one included.
    """

    email: str
    failure_reason: str
    attempt_count: int = 1


class RegistrationEventContext(BaseEventContext):
    """A new account exists.

    Attributes:
        user_id: the id of the account.
        email: the e-mail address of the account.
        name: the name of the user, or None.
        account_status: the status with which the account begins, or None.
    """

    user_id: AccountId
    email: str
    name: str | None = None
    account_status: str | None = None


class _AccountEventContext(BaseEventContext):
    user_id: AccountId
    email: str | None = None


class AccountActivatedEventContext(_AccountEventContext):
    """An account may be used from now on.

    Attributes:
        user_id: the id of the account.
        email: the e-mail address of the account, or None.
    """


class AccountBannedEventContext(_AccountEventContext):
    """An account was shut out.

    Attributes:
        user_id: the id of the account.
        email: the e-mail address of the account, or None.
        reason: why the account was shut out, or None.
    """

    reason: str | None = None


class AccountClosedEventContext(_AccountEventContext):
    """An account was given up.

    Attributes:
        user_id: the id of the account.
        email: the e-mail address of the account, or None.
        reason: why the account was given up, or None.
    """

    reason: str | None = None


class PasswordChangedEventContext(_AccountEventContext):
    """An account has a new password. The event does not carry the password.

    Attributes:
        user_id: the id of the account.
        email: the e-mail address of the account, or None.
    """


class SessionExpiredEventContext(_AccountEventContext):
    """A session ran out.

    Attributes:
        user_id: the id of the account.
        email: the e-mail address of the account, or None.
        session_duration: how long the session lasted, in seconds, or None.
    """

    session_duration: float | None = None


class TokenRefreshedEventContext(_AccountEventContext):
    """A session has a new token. The event does not carry the token.

    Attributes:
        user_id: the id of the account.
        email: the e-mail address of the account, or None.
    """


class SuspiciousActivityEventContext(BaseEventContext):
    """Something looks like an attack.

    Attributes:
        kind: what looks suspicious. The ready-made handlers use `brute_force`, `many_accounts` and
            `success_after_failures`.
        subject: who or what it concerns, such as an e-mail address or a network address.
        count: how often it was seen.
        window_seconds: within how many seconds it was seen so often, or None.
    """

    kind: str
    subject: str
    count: int
    window_seconds: float | None = None


class SystemStartupEventContext(BaseEventContext):
    """The application is up.

    Attributes:
        version: the version of the application, or None.
        process_id: the id of its process, or None.
    """

    version: str | None = None
    process_id: int | None = None


class SystemShutdownEventContext(BaseEventContext):
    """The application goes down.

    Attributes:
        uptime: how long the application was running, in seconds, or None.
        reason: why it goes down, or None.
    """

    uptime: float | None = None
    reason: str | None = None


class HandlerFailedEventContext(BaseEventContext):
    """A handler failed.

    The event `handler_failed` carries names only. No value of the event that was handled leaks.

    Attributes:
        event_name: the name of the event that the handler was called for.
        handler_name: the `id` of the handler, or else the function's dotted name.
        exception_type: the name of the exception's class.
        batch_size: with how many contexts the handler was called, if it takes batches, or else
            None.
    """

    event_name: str
    handler_name: str
    exception_type: str
    batch_size: int | None = None


class GenericEventContext(BaseEventContext):
    """A context for any event, as a name and a dictionary.

    Use it where both come from outside, as from a message queue. Handlers get each entry of `data`
    as a keyword, besides `event_type`, `data` and the fields of `BaseEventContext`. If an entry has
    the name of one of these fields, they get the field. A handler that takes the event's model gets
    a model that is made from the entries.

    Attributes:
        event_type: the name of the event.
        data: the fields of the event. No key may be `sender` or `self`.

    Raises:
        pydantic.ValidationError: as for `BaseEventContext`, or a key of `data` is not allowed.

    Example:
        ```python
        from madcrow_events import GenericEventContext, get_event_dispatcher, madcrow_signals

        madcrow_signals.signal("order_placed", "A customer placed an order.")


        @madcrow_signals["order_placed"].on()
        def write_log(context: GenericEventContext) -> None:
            print(context.event_type, context.data)


        message = GenericEventContext(event_type="order_placed", data={"order_id": 7})
        get_event_dispatcher().emit_typed(message.event_type, message)
        ```

        ```text
        order_placed {'order_id': 7}
        ```
    """

    event_type: str
    data: dict[str, Any] = Field(default_factory=dict)

    @field_validator("data")
    @classmethod
    def _no_reserved_keys(cls, data: dict[str, Any]) -> dict[str, Any]:
        if not RESERVED_FIELDS.isdisjoint(data):
            raise PydanticCustomError(
                "reserved_key",
                "the keys 'sender' and 'self' are reserved for the call of a handler: rename them",
            )
        return data

    def _keywords(self) -> dict[str, Any]:
        return {**self.data, **super()._keywords()}


def values_for(context: GenericEventContext, model: type[BaseEventContext]) -> dict[str, Any]:
    """Return `data` and the base fields, as keywords for another model.

    A base field that was left out may be in `data`, under an alias of the model.
    """
    own, values = BaseEventContext._keywords(context), dict(context.data)
    for name in BaseEventContext._field_names:
        spelled = spellings_of(model, name)
        is_ours = name in context.model_fields_set or not is_given_by_alias(model, name, values)
        if spelled and is_ours:
            for it in (name, *spelled):
                values.pop(it, None)
            values[spelled[0]] = own[name]
    return values
