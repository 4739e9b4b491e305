"""A small account service that tells the rest of an application what happened.

Run it with `python examples/quickstart.py`. The service in the first half knows
nothing of mail, statistics or a help desk: it does its work, commits it and
emits an event. The handlers in the second half do the rest, in every shape that
a handler may have. One of them is broken on purpose, and nothing breaks with it.
"""

import hashlib
import logging
import secrets
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
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
    emit_login_event,
    emit_login_failed_event,
    emit_logout_event,
    emit_password_changed_event,
    emit_registration_event,
    get_event_dispatcher,
    login_failed,
    madcrow_signals,
    on_event,
    set_event_dispatcher,
)

MAX_ATTEMPTS = 3
MIN_PASSWORD_LENGTH = 8
SCRYPT_N = 2**14  # with r=8 and p=5: 16 MiB and a fraction of a second for each guess
NO_ACCOUNT = ("", "", "", bytes(16), bytes(32), 0)
SCHEMA = """
CREATE TABLE accounts (id TEXT PRIMARY KEY, email TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
    salt BLOB NOT NULL, digest BLOB NOT NULL, failures INTEGER NOT NULL);
CREATE TABLE sessions (token_digest BLOB PRIMARY KEY, user_id TEXT NOT NULL, email TEXT NOT NULL);
"""


class AccountLockedEventContext(BaseEventContext):
    """What `account_locked` carries, beside the time and the client that every event has."""

    user_id: str
    email: str


account_locked = madcrow_signals.signal(
    "account_locked", "Too many wrong passwords.", context=AccountLockedEventContext
)


class AccountError(Exception):
    """A request that the service refuses; its text may be shown to whoever asked."""


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
        user_id, email = str(uuid4()), email.strip().lower()
        account = (user_id, email, name, *_salt_and_digest(password), 0)
        try:
            self._commit("INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?)", *account)
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

    def _authenticate(self, email: str, password: str) -> tuple[str, str, str]:
        email = email.strip().lower()
        row = self._database.execute("SELECT * FROM accounts WHERE email = ?", (email,)).fetchone()
        user_id, _, name, salt, digest, failures = row or NO_ACCOUNT
        # Computed in every case: how long a refusal takes must not tell who has an account.
        matches = secrets.compare_digest(_digest(password, salt), digest)
        if row and matches and failures < MAX_ATTEMPTS:
            self._commit("UPDATE accounts SET failures = 0 WHERE id = ?", user_id)
            return user_id, email, name
        count = "UPDATE accounts SET failures = failures + 1 WHERE id = ? RETURNING failures"
        counted = self._commit(count, user_id)
        attempts = counted[0][0] if counted else 1
        reason = "account locked" if attempts > MAX_ATTEMPTS else "wrong password"
        reason = reason if row else "no account"
        emit_login_failed_event(
            LoginFailedEventContext(email=email, failure_reason=reason, attempt_count=attempts)
        )
        if attempts == MAX_ATTEMPTS:
            locked = AccountLockedEventContext(user_id=user_id, email=email)
            get_event_dispatcher().emit_typed(account_locked, locked)
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
# `@on_event("user_registered")` in place of `@handlers.on(...)` would do so at once.
handlers = HandlerGroup("quickstart")


def tell(who: str, what: str) -> None:
    """Print what a handler does."""
    print(f"    {who:<11}{what}")


@handlers.on("*", priority=100)
def keep_audit_trail(emission: Emission) -> None:
    """Take every event; the priority puts the trail before all other handlers."""
    tell("audit", emission.event)


@handlers.on("user_registered")
def subscribe_to_newsletter(email: str) -> None:
    """Take one field by name; and fail, as other people's services do."""
    raise ConnectionError(f"the newsletter service is down: {email} is not subscribed")


@handlers.on("user_registered")
def send_welcome_mail(context: RegistrationEventContext) -> None:
    """Take the typed context."""
    tell("mail", f"to {context.email}: Welcome, {context.name}!")


@handlers.on("user_logged_in")
@handlers.on("user_logged_out")
def follow_presence(context: LoginEventContext | LogoutEventContext) -> None:
    """Take the contexts of several events."""
    if isinstance(context, LoginEventContext):
        tell("presence", f"{context.name} is here")
    else:
        tell("presence", f"{context.email} has left ({context.logout_reason})")


@handlers.on("login_failed", when=lambda context: context["attempt_count"] > 1)
def warn_owner(sender: object, email: str, **rest: object) -> None:
    """Take a field and the rest, of the events that `when` lets through."""
    tell("mail", f"to {email}: {sender} {rest['attempt_count']} times, was it you?")


@handlers.on(account_locked)
def open_ticket(context: AccountLockedEventContext) -> None:
    """Take the typed context of an event of our own."""
    tell("help desk", f"{context.email} is locked out and may call")


@handlers.on("user_*")
def send_to_analytics(sender: object, **context: object) -> None:
    """Take all events whose name begins so, those declared later too, with all their fields."""
    tell("analytics", f"{sender} by {context['email']}")


@handlers.on("user_registered")
def refresh_website() -> None:
    """Take nothing: that it happened is enough."""
    tell("website", "shows one more member")


@handlers.on("handler_failed")
def tell_operations(handler_name: str, exception_type: str) -> None:
    """Hear of a handler that failed, after all others have run."""
    short_name = handler_name.rpartition(".")[2]
    tell("operations", f"{short_name} failed with {exception_type}, the others have run")


def confirm_by_mail(sender: object, email: str) -> None:
    """Take the sender, which is the signal unless the emitter names one, and a field."""
    tell("mail", f"to {email}: {sender}, was it you?")


class Statistics:
    """Counts for a dashboard."""

    def __init__(self) -> None:
        self.refusals = 0

    def count_refusal(self, context: LoginFailedEventContext) -> None:
        """Count one, as a bound method does: in its object."""
        self.refusals += 1
        tell("statistics", f"refusal {self.refusals}: {context.failure_reason}")


def register_handlers(statistics: Statistics) -> None:
    """Register all; a bound method is held weakly, so `statistics` is the caller's to keep."""
    handlers.register()
    on_event("password_changed")(confirm_by_mail)  # what the decorator @on_event does
    login_failed.subscribe(statistics.count_refusal)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Tell what is tried, and what the service says if it refuses."""
    print(what)
    try:
        yield
    except AccountError as error:
        print(f"  Refused: {error}.")


def tell_story(service: AccountService, password: str, new_password: str) -> None:
    """Use the service as an application would."""
    ada = "ada@example.com"
    with step("Ada registers."):
        service.register(ada, password, "Ada")
    with step("Mallory registers with the same e-mail."):
        service.register(ada, "mallory was here", "Mallory")
    with step("Ada signs in."):
        service.sign_in(ada, password)
    with step("Ada changes her password."):
        service.change_password(ada, password, new_password)
    with step("Ada signs in with the new one, and out."):
        service.sign_out(service.sign_in(ada, new_password))
    for _ in range(MAX_ATTEMPTS):
        with step("Mallory tries the old one."):
            service.sign_in(ada, password)
    with step("Ada tries the right one, too late."):
        service.sign_in(ada, new_password)


def main() -> None:
    """Tell the story, with handlers that print what they would do."""
    logging.basicConfig(stream=sys.stdout, format="    log        %(levelname)s %(message)s")
    # Tracebacks belong in a real log; here they would hide the story.
    set_event_dispatcher(EventDispatcher(log_tracebacks=False))
    statistics = Statistics()
    register_handlers(statistics)
    with closing(sqlite3.connect(":memory:")) as database:
        tell_story(AccountService(database), "correct horse battery staple", "two owls, one lamp")
    print(f"The end: {statistics.refusals} sign-ins refused, no request lost to a broken handler.")


if __name__ == "__main__":
    main()
