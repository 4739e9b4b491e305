"""Event contexts: what an event carries, as frozen pydantic models.

`BaseEventContext` is the base of every typed context, of yours too. The
built-in events have theirs below. Building a model's validator is deferred to
its first use, which keeps the import fast.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping

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
"""Names that the call of a handler needs for itself (C1)."""

SCOPE_FIELDS = ("request_id", "user_agent", "ip_address")
"""What `event_scope` can fill in (B5)."""


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


AccountId = UUID | int | str
"""How an application may identify an account."""


class BaseEventContext(BaseModel):
    """What every typed context carries: when it happened and where the request came from.

    Frozen, without extra fields, and silent about its input when validation
    fails (C1). A field may not be called `sender` or `self`.

    Attributes:
        timestamp: when it happened; aware, kept in UTC, now unless given.
        request_id: the request that caused it.
        user_agent: the client's own description of itself.
        ip_address: the client's address.

    Raises:
        pydantic.ValidationError: a field is missing, unknown or of the wrong
            type, or the timestamp is naive.
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
    _scope_fields: ClassVar[tuple[str, ...]] = SCOPE_FIELDS

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Note the names of the fields once, so that no emission has to ask for them."""
        super().__pydantic_init_subclass__(**kwargs)
        cls._field_names = tuple(cls.model_fields)
        # A field that was declared anew may forbid what a scope would fill in unchecked.
        cls._scope_fields = tuple(
            name
            for name in SCOPE_FIELDS
            if (field := cls.model_fields[name]).annotation in (str, str | None)
            and not field.metadata
        )

    def _filled(self, fields: Mapping[str, str]) -> BaseEventContext:
        """Return a copy with those of the fields that were left out, or itself if none was."""
        missing = {
            name: fields[name]
            for name in self._scope_fields
            if name in fields and name not in self.model_fields_set
        }
        if not missing:
            return self
        filled = self.model_copy(update=missing)
        # A cached_property may have been worked out from what was missing.
        for name in vars(filled).keys() - set(self._field_names):
            if isinstance(getattr(type(self), name, None), cached_property):
                del vars(filled)[name]
        return filled

    if not TYPE_CHECKING:  # pragma: no branch  # for a checker, frozen models have no such method

        def __setattr__(self, name: str, value: object) -> None:
            """Refuse to change a field, without showing the value, as pydantic would (G1)."""
            if name.startswith("_"):
                super().__setattr__(name, value)
                return
            error = InitErrorDetails(type="frozen_instance", loc=(name,), input=value)
            title = type(self).__name__
            raise ValidationError.from_exception_data(title, [error], hide_input=True)

    def _keywords(self) -> dict[str, Any]:
        """Return the field values by name; for reading and unpacking, not for changing."""
        values: dict[str, Any] = vars(self)
        if len(values) == len(self._field_names):
            return values
        # A cached_property of a subclass lives in __dict__ too, and is no field.
        return {name: values[name] for name in self._field_names}


BaseEventContext._field_names = tuple(
    BaseEventContext.model_fields
)  # the hook above runs for subclasses only


def fill_loose(
    model: type[BaseEventContext] | None, keywords: dict[str, Any], fields: Mapping[str, str]
) -> None:
    """Add those of the fields that a loose emission left out and the model, if any, can take."""
    for name in (model or BaseEventContext)._scope_fields:
        if name in fields:
            keywords.setdefault(name, fields[name])


class LoginEventContext(BaseEventContext):
    """A user signed in. `session_duration` is how long the session will last, in seconds."""

    user_id: AccountId
    email: str
    name: str | None = None
    is_admin: bool = False
    remember_me: bool = False
    session_duration: float | None = None


class LogoutEventContext(BaseEventContext):
    """A user signed out. `session_duration` is how long the session lasted, in seconds."""

    user_id: AccountId
    email: str
    session_duration: float | None = None
    logout_reason: str | None = None


class LoginFailedEventContext(BaseEventContext):
    """Somebody tried to sign in and was refused; `attempt_count` counts this attempt too."""

    email: str
    failure_reason: str
    attempt_count: int = 1


class RegistrationEventContext(BaseEventContext):
    """A new account exists."""

    user_id: AccountId
    email: str
    name: str | None = None
    account_status: str | None = None


class _AccountEventContext(BaseEventContext):
    user_id: AccountId
    email: str | None = None


class AccountActivatedEventContext(_AccountEventContext):
    """An account may be used from now on."""


class AccountBannedEventContext(_AccountEventContext):
    """An account was shut out."""

    reason: str | None = None


class AccountClosedEventContext(_AccountEventContext):
    """An account was given up."""

    reason: str | None = None


class PasswordChangedEventContext(_AccountEventContext):
    """An account has a new password, which is no part of the event."""


class SessionExpiredEventContext(_AccountEventContext):
    """A session ran out. `session_duration` is how long it lasted, in seconds."""

    session_duration: float | None = None


class TokenRefreshedEventContext(_AccountEventContext):
    """A session's token was replaced by a new one, which is no part of the event."""


class SuspiciousActivityEventContext(BaseEventContext):
    """Something looks like an attack.

    `kind` names the pattern, `subject` who or what it concerns, `count` how
    often it was seen, `window_seconds` within how many seconds.
    """

    kind: str
    subject: str
    count: int
    window_seconds: float | None = None


class SystemStartupEventContext(BaseEventContext):
    """The application is up."""

    version: str | None = None
    process_id: int | None = None


class SystemShutdownEventContext(BaseEventContext):
    """The application goes down. `uptime` is how long it ran, in seconds."""

    uptime: float | None = None
    reason: str | None = None


class HandlerFailedEventContext(BaseEventContext):
    """A handler raised; names only, so that nothing of the failed event's context leaks.

    `batch_size` is how many contexts the handler was called with, if it takes batches.
    """

    event_name: str
    handler_name: str
    exception_type: str
    batch_size: int | None = None


class GenericEventContext(BaseEventContext):
    """A typed context for an event that has no model of its own (C3).

    The entries of `data` reach handlers as keywords of their own, beside
    `event_type` and `data`; where a name stands in both, the field wins.

    Attributes:
        event_type: the name of the event it is emitted as.
        data: the payload; its keys may not be `sender` or `self`.
    """

    event_type: str
    data: dict[str, Any] = Field(default_factory=dict)

    @field_validator("data")
    @classmethod
    def _no_reserved_keys(cls, data: dict[str, Any]) -> dict[str, Any]:
        if not RESERVED_FIELDS.isdisjoint(data):
            raise PydanticCustomError(
                "reserved_key", "the keys 'sender' and 'self' belong to the call: rename them"
            )
        return data

    def _keywords(self) -> dict[str, Any]:
        return {**self.data, **super()._keywords()}

    def _payload(self) -> dict[str, Any]:
        """Return `data` with the base fields, as another model is validated from it."""
        own = super()._keywords()
        return {**self.data, **{name: own[name] for name in BaseEventContext._field_names}}
