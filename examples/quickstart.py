"""A small account service that tells the rest of an application what happened.

Run it with `python examples/quickstart.py`. The service in the first half knows
nothing of mail, statistics or a help desk: it does its work, commits it and
emits an event. The ready-made handlers keep the audit trail, notice an attack
and count; handlers of our own do the rest. One of them is broken on purpose,
and nothing breaks with it. `every_shape.py` has handlers of every form.
"""

import hashlib
import logging
import secrets
import sqlite3
import unicodedata
from collections.abc import Callable
from contextlib import closing
from typing import Any
from uuid import uuid4

from madcrow_events import (
    BaseEventContext,
    Emission,
    EventDispatcher,
    HandlerGroup,
    LoginEventContext,
    LoginFailedEventContext,
    LogoutEventContext,
    PasswordChangedEventContext,
    RegistrationEventContext,
    SuspiciousActivityEventContext,
    SystemShutdownEventContext,
    SystemStartupEventContext,
    emit_event,
    emit_login_event,
    emit_login_failed_event,
    emit_logout_event,
    emit_password_changed_event,
    emit_registration_event,
    madcrow_signals,
    set_event_dispatcher,
)
from madcrow_events.event_handlers import register_all_handlers
from madcrow_events.event_handlers.auth_handlers import activity_snapshot
from madcrow_events.event_handlers.security_handlers import add_alert_function, failure_analytics

MIN_PASSWORD_LENGTH = 8
SCRYPT_N = 2**14  # with r=8 and p=5: 16 MiB and a fraction of a second for each guess
NO_ACCOUNT = ("", "", "", bytes(16), bytes(32), 0, 0)
SCHEMA = """
CREATE TABLE accounts (id TEXT PRIMARY KEY, email TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
    salt BLOB NOT NULL, digest BLOB NOT NULL, failures INTEGER NOT NULL, locked INTEGER NOT NULL);
CREATE TABLE sessions (token_digest BLOB PRIMARY KEY, user_id TEXT NOT NULL, email TEXT NOT NULL);
"""


# The class is the event: its name is `account_locked`, and its fields are what it carries, beside
# the time and the client that every event has.
@madcrow_signals.event
class AccountLocked(BaseEventContext):
    """An account admits nobody."""

    user_id: str
    email: str


class AccountError(Exception):
    """A request that the service refuses; its text may be shown to whoever asked."""


def _same_email(email: str) -> str:
    return unicodedata.normalize("NFKC", email).casefold().strip()


def _digest(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=SCRYPT_N, r=8, p=5, dklen=32)


def _salt_and_digest(new_password: str) -> tuple[bytes, bytes]:
    if len(new_password) < MIN_PASSWORD_LENGTH:
        raise AccountError(f"a password has {MIN_PASSWORD_LENGTH} characters or more")
    salt = secrets.token_bytes(16)
    return salt, _digest(new_password, salt)


def _token_digest(token: str) -> bytes:
    # The database holds no token, so that whoever reads it cannot take over a session.
    return hashlib.sha256(token.encode()).digest()


class AccountService:
    """Accounts and sessions in an empty SQLite database; events follow the commit."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.executescript(SCHEMA)

    def register(self, email: str, password: str, name: str) -> None:
        """Open an account, or raise `AccountError` if the e-mail has one already."""
        user_id, email = str(uuid4()), _same_email(email)
        account = (user_id, email, name, *_salt_and_digest(password), 0, 0)
        try:
            self._commit("INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?)", *account)
        except sqlite3.IntegrityError:
            raise AccountError("this e-mail has an account already") from None
        emit_registration_event(RegistrationEventContext(user_id=user_id, email=email, name=name))

    def sign_in(self, email: str, password: str) -> str:
        """Return the token of a new session, or raise `AccountError`."""
        user_id, email, name = self._authenticate(email, password)
        token = secrets.token_urlsafe()
        self._commit("INSERT INTO sessions VALUES (?, ?, ?)", _token_digest(token), user_id, email)
        emit_login_event(LoginEventContext(user_id=user_id, email=email, name=name))
        return token

    def signed_in(self, token: str) -> str | None:
        """Return the e-mail of the account whose session it is; None if it is over."""
        query = "SELECT email FROM sessions WHERE token_digest = ?"
        row = self._database.execute(query, (_token_digest(token),)).fetchone()
        return row[0] if row else None

    def sign_out(self, token: str) -> None:
        """End a session; if it is over already nothing happens, and so no event."""
        statement = "DELETE FROM sessions WHERE token_digest = ? RETURNING user_id, email"
        self._emit_logouts(self._commit(statement, _token_digest(token)), "by the user")

    def change_password(self, email: str, password: str, new_password: str) -> None:
        """Set a new password and end all sessions, or raise `AccountError`."""
        user_id, email, _ = self._authenticate(email, password)
        changed = (*_salt_and_digest(new_password), user_id)
        # Sessions first: should the second statement fail, no session outlives its password.
        statement = "DELETE FROM sessions WHERE user_id = ? RETURNING user_id, email"
        ended = self._commit(statement, user_id)
        self._commit("UPDATE accounts SET salt = ?, digest = ? WHERE id = ?", *changed)
        emit_password_changed_event(PasswordChangedEventContext(user_id=user_id, email=email))
        self._emit_logouts(ended, "password changed")

    def lock_account(self, email: str) -> None:
        """Admit nobody to an account from now on; if it is locked nothing happens, so no event."""
        statement = "UPDATE accounts SET locked = 1 WHERE email = ? AND NOT locked RETURNING id"
        for (user_id,) in self._commit(statement, _same_email(email)):
            emit_event(AccountLocked(user_id=user_id, email=_same_email(email)))

    def _authenticate(self, email: str, password: str) -> tuple[str, str, str]:
        email = _same_email(email)
        row = self._database.execute("SELECT * FROM accounts WHERE email = ?", (email,)).fetchone()
        user_id, _, name, salt, digest, _, _ = row or NO_ACCOUNT
        # Computed in every case: how long a refusal takes must not tell who has an account.
        matches = secrets.compare_digest(_digest(password, salt), digest)
        # `locked` is looked at as the count is set, for computing the digest took its time.
        admit = "UPDATE accounts SET failures = 0 WHERE id = ? AND NOT locked RETURNING id"
        if row and matches and self._commit(admit, user_id):
            return user_id, email, name
        count = "UPDATE accounts SET failures = failures+1 WHERE id = ? RETURNING failures, locked"
        counted = self._commit(count, user_id)
        attempts, locked = counted[0] if counted else (1, 0)
        reason = "account locked" if locked else "wrong password" if row else "no account"
        emit_login_failed_event(
            LoginFailedEventContext(email=email, failure_reason=reason, attempt_count=attempts)
        )
        raise AccountError("wrong e-mail or password, or the account is locked")

    def _commit(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._database:
            return self._database.execute(statement, values).fetchall()

    @staticmethod
    def _emit_logouts(ended: list[tuple[Any, ...]], reason: str) -> None:
        for user_id, email in ended:
            context = LogoutEventContext(user_id=user_id, email=email, logout_reason=reason)
            emit_logout_event(context)


# A group only collects its handlers, so importing this file registers none of them.
# `@on_event(RegistrationEventContext)` in place of `@handlers.on(...)` would do so at once.
handlers = HandlerGroup("quickstart")


def tell(who: str, what: str) -> None:
    """Print what a handler does."""
    print(f"    {who:<11}{what}")


@handlers.on(RegistrationEventContext)
def subscribe_to_newsletter(context: RegistrationEventContext) -> None:
    """Fail, as other people's services do."""
    raise ConnectionError(f"the newsletter service is down: {context.email} is not subscribed")


@handlers.on(RegistrationEventContext)
def send_welcome_mail(context: RegistrationEventContext) -> None:
    """Take the context; a type checker compares it with the class in the line above."""
    tell("mail", f"to {context.email}: Welcome, {context.name}!")


@handlers.on(LoginEventContext)
@handlers.on(LogoutEventContext)
def follow_presence(context: LoginEventContext | LogoutEventContext) -> None:
    """Take the contexts of several events."""
    signed_in = isinstance(context, LoginEventContext)
    tell("presence", f"{context.email} {'is here' if signed_in else 'has left'}")


@handlers.on(LoginFailedEventContext, when=lambda context: context["attempt_count"] == 2)  # noqa: PLR2004  # the second time is no typing error
def warn_owner(context: LoginFailedEventContext) -> None:
    """Hear only of the events that `when` lets through."""
    tell("mail", f"to {context.email}: {context.attempt_count} sign-ins failed, was it you?")


@handlers.on(AccountLocked)
def open_ticket(emission: Emission[AccountLocked]) -> None:
    """Take the emission: the context, and the events whose handlers led to this one."""
    tell("help desk", f"{emission.context.email} is locked out and may call")
    cause = emission.parent
    while cause is not None:
        tell("", f"because of {cause.event}")
        cause = cause.parent


@handlers.on("user_*", priority=-1)
def send_to_analytics(sender: object, **context: object) -> None:
    """Take all events whose name begins so, those declared later too, after other handlers.

    The sender is the signal, which prints as the event's name, unless the emitter gives another.
    """
    tell("analytics", f"{sender} by {context['email']}")


@handlers.on(PasswordChangedEventContext)
def confirm_by_mail(context: PasswordChangedEventContext) -> None:
    """Tell the owner, in case it was somebody else."""
    tell("mail", f"to {context.email}: You have a new password, was it you?")


@handlers.on("handler_failed")
def tell_operations(handler_name: str, exception_type: str) -> None:
    """Name the event, and take its fields by name; hear of a failure when all others have run."""
    tell("operations", f"{exception_type} in {handler_name}, the others have run")


@handlers.on(SystemShutdownEventContext)
def print_report() -> None:
    """Take nothing: what the ready-made handlers counted can be read until the last of them."""
    for counts in (activity_snapshot().by_event, failure_analytics().by_reason):
        for what, times in counts.items():
            tell("report", f"{what}: {times}")


LISTED_FIELDS = (
    *("email", "failure_reason", "attempt_count", "logout_reason", "kind", "subject", "count"),
    *("reason", "version", "events_emitted", "handlers_failed"),
)


class StoryHandler(logging.Handler):
    """Prints the message of a record and, of its fields, those that are listed."""

    def emit(self, record: logging.LogRecord) -> None:
        """Begin with the last part of the logger's name: audit, security or system."""
        who = record.name.removeprefix("madcrow_events").lstrip(".") or "log"
        values = ((field, getattr(record, field, None)) for field in LISTED_FIELDS)
        listed = [f"{field}={value}" for field, value in values if value is not None]
        tell(who, "; ".join([record.getMessage(), *listed]))


def register_handlers(service: AccountService) -> None:
    """Register all; the ready-made come first, so that each event is in the trail at once."""
    register_all_handlers()
    handlers.register()

    @add_alert_function  # anybody who knows the e-mail can bring it about: hence the help desk
    def lock_attacked_account(alert: SuspiciousActivityEventContext) -> None:
        if alert.kind == "brute_force":
            service.lock_account(alert.subject)


def step(what: str, act: Callable[..., object], *arguments: str) -> None:
    """Tell what is tried, and what the service says if it refuses."""
    print(what)
    try:
        act(*arguments)
    except AccountError as error:
        print(f"  Refused: {error}.")


def tell_story(service: AccountService, password: str, new_password: str) -> None:
    """Use the service as an application would."""
    ada = "ada@example.com"
    step("Ada registers.", service.register, ada, password, "Ada")
    step("Mallory registers as Ada.", service.register, ada, "mallory was here", "Mallory")
    step("Ada signs in.", service.sign_in, ada, password)
    step("Ada changes her password.", service.change_password, ada, password, new_password)
    step("Ada comes and goes.", lambda: service.sign_out(service.sign_in(ada, new_password)))
    for _ in range(5):
        step("Mallory tries the old one.", service.sign_in, ada, password)
    step("Ada tries the right one, too late.", service.sign_in, ada, new_password)


def main() -> None:
    """Tell the story, with handlers that print what they would do."""
    log = logging.getLogger("madcrow_events")  # the parent of those for audit, security, system
    log.addHandler(StoryHandler())
    log.setLevel(logging.INFO)
    # Tracebacks belong in a real log; here they would hide the story.
    set_event_dispatcher(EventDispatcher(log_tracebacks=False))
    with closing(sqlite3.connect(":memory:")) as database:
        service = AccountService(database)
        register_handlers(service)
        print("The application starts.")
        emit_event(SystemStartupEventContext(version="1.0"))
        tell_story(service, "correct horse battery staple", "two owls, one lamp")
        print("The application ends.")
        emit_event(SystemShutdownEventContext(reason="end of story"))


if __name__ == "__main__":
    main()
