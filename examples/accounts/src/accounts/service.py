"""Accounts, sessions and the lock-out: what the applications do, whatever framework serves them.

Each method changes the database and then emits what has happened, so that an event never tells of
what was rolled back.
"""

import hashlib
import secrets
import time
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from pydantic import BaseModel, ConfigDict, EmailStr, StringConstraints, ValidationError
from sqlalchemy import delete, select, tuple_, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import IntegrityError

from accounts.database import AccountRow, LockRow, SessionRow, open_database
from accounts.events import AccountLocked, FailureRequested, fail_on_purpose
from madcrow_events import (
    Emission,
    EventDispatcher,
    LoginEventContext,
    LoginFailedEventContext,
    LogoutEventContext,
    PasswordChangedEventContext,
    RegistrationEventContext,
    SessionExpiredEventContext,
    SuspiciousActivityEventContext,
)
from madcrow_events.event_handlers.security_handlers import normalized_email

WRONG = {
    # For both fields: whoever guesses is not told which e-mails have accounts.
    "password": "E-mail or password is wrong.",
    "current": "The current password is wrong.",
}
"""What is said of a password that is not the account's, by the field where it was typed."""

HOUR = 3600.0  # seconds
SESSION_SECONDS = 12 * HOUR
REMEMBERED_SECONDS = 30 * 24 * HOUR
LOCK_SECONDS = HOUR / 4
GUESSED_FOR_ONE, GUESSED_FOR_MANY = "brute_force", "many_accounts"
"""The kinds of suspicious activity after which nobody can sign in for a while: with an e-mail, and
from an address."""


class Refused(Exception):  # noqa: N818  # it is an answer
    """What was asked for is not done; the text says why, for the person who asked.

    Attributes:
        field: what is wrong in the form, by its name; None if no field is at fault.
        status: the HTTP status that fits.
    """

    def __init__(self, text: str, field: str | None, status: int = 422) -> None:
        super().__init__(text)
        self.field = field
        self.status = status


class Account(NamedTuple):
    """What the rest of the application may know of an account."""

    id: int
    email: str
    name: str
    is_admin: bool


class SignedIn(NamedTuple):
    """A session that has begun.

    Attributes:
        token: what the visitor's cookie is to hold.
        seconds: how long the cookie lasts; None until the browser is closed.
    """

    token: str
    seconds: int | None


Form = TypeVar("Form", bound=BaseModel)
_Email = Annotated[EmailStr, StringConstraints(max_length=254)]
_Password = Annotated[str, StringConstraints(min_length=12, max_length=128)]


class _Registration(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    email: _Email
    name: Annotated[
        str,
        StringConstraints(
            strip_whitespace=True, min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$"
        ),
    ]
    password: _Password


class _Credentials(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    email: _Email


class _NewPassword(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    new: _Password


_WHAT_FITS = {
    "email": "Enter an e-mail address, such as ada@example.com.",
    "name": "Enter a name of 1 to 100 characters.",
    "password": "Choose a password of 12 to 128 characters.",
    "new": "Choose a password of 12 to 128 characters.",
}


class Accounts:
    """The accounts of an application.

    It locks an e-mail or an address when `suspicious_activity` tells that passwords are guessed.

    Args:
        folder: where the database is.
        dispatcher: what the events are emitted through.
    """

    def __init__(self, folder: Path, dispatcher: EventDispatcher) -> None:
        self._begin = open_database(folder / "accounts.db").begin
        self._dispatcher = dispatcher
        self._hasher = PasswordHasher()
        # Compared with for e-mails without an account, so that those take as long as others.
        self._nobodys_hash = self._hasher.hash(secrets.token_hex())
        # Held weakly, as bound methods are: it ends with this object. In the background, for what
        # waits for a database must not run in an event loop, where events may go out.
        dispatcher.signals.subscribe(SuspiciousActivityEventContext, self.lock_out, background=True)
        dispatcher.signals.subscribe(FailureRequested, fail_on_purpose)

    def sign_up(self, email: str, name: str, password: str) -> Account:
        """Make an account.

        Raises:
            Refused: a value does not fit, or the e-mail has an account.
        """
        form = _checked(_Registration, email=email, name=name, password=password)
        row = AccountRow(
            key=normalized_email(form.email),
            email=form.email,
            name=form.name,
            password_hash=self._hasher.hash(form.password),
            is_admin=False,
        )
        try:
            with self._begin() as database:
                database.add(row)
        except IntegrityError:
            raise Refused("This e-mail has an account already.", "email", 409) from None
        account = _account(row)
        self._dispatcher.emit(
            RegistrationEventContext(
                user_id=account.id, email=account.email, name=account.name, account_status="active"
            )
        )
        return account

    def sign_in(
        self, email: str, password: str, *, address: str | None = None, remember_me: bool = False
    ) -> SignedIn:
        """Begin a session.

        Args:
            email: as it was typed.
            password: likewise.
            address: where the visitor comes from.
            remember_me: whether the session outlasts the browser.

        Raises:
            Refused: e-mail or password is wrong, or it was tried too often.
        """
        # What is no e-mail may be a password in the wrong field, and must not be in an event.
        _checked(_Credentials, email=email)
        key = normalized_email(email)
        with self._begin() as database:
            row = database.scalar(select(AccountRow).where(AccountRow.key == key))
        self._verify(row, email, password, address, "password")
        assert row is not None  # noqa: S101  # or it was refused
        token = secrets.token_urlsafe(32)
        seconds = REMEMBERED_SECONDS if remember_me else SESSION_SECONDS
        now = time.time()
        with self._begin() as database:
            database.add(
                SessionRow(
                    token_hash=_hash(token),
                    account_id=row.id,
                    began_at=now,
                    expires_at=now + seconds,
                )
            )
            database.flush()
            # The password may have been changed since it was compared; from here on it waits.
            current = select(AccountRow.password_hash).where(AccountRow.id == row.id)
            if database.scalar(current) != row.password_hash:
                raise _wrong("password")
        self._dispatcher.emit(
            LoginEventContext(
                user_id=row.id,
                email=row.email,
                name=row.name,
                is_admin=row.is_admin,
                remember_me=remember_me,
            )
        )
        return SignedIn(token, int(seconds) if remember_me else None)

    def _verify(
        self, row: AccountRow | None, email: str, password: str, address: str | None, field: str
    ) -> None:
        """Compare a password, typed in a field, unless guessing is going on.

        Raises:
            Refused: it is wrong, or was tried too often.
        """
        self._refuse_locked(email, address)
        try:
            self._hasher.verify(self._nobodys_hash if row is None else row.password_hash, password)
            is_right = row is not None
        except (UnicodeEncodeError, VerifyMismatchError):
            is_right = False
        # Again, for others may have guessed meanwhile: whoever guesses much at once learns little.
        self._refuse_locked(email, address)
        if not is_right:
            self._fail(email, "no such account" if row is None else "wrong password")
            raise _wrong(field)

    def _refuse_locked(self, email: str, address: str | None) -> None:
        locks = [(GUESSED_FOR_ONE, normalized_email(email)), (GUESSED_FOR_MANY, address)]
        is_one_of_them = tuple_(LockRow.kind, LockRow.subject).in_(locks)
        with self._begin() as database:
            is_locked = database.scalar(
                select(LockRow).where(is_one_of_them, LockRow.until > time.time())
            )
        if is_locked:
            self._fail(email, "locked")
            raise Refused("Too many attempts have failed. Try again in 15 minutes.", None, 429)

    def _fail(self, email: str, reason: str) -> None:
        self._dispatcher.emit(LoginFailedEventContext(email=email, failure_reason=reason))

    def lock_out(self, emission: Emission[SuspiciousActivityEventContext]) -> None:
        """Refuse sign-ins for a while; handles `suspicious_activity`."""
        alert, now = emission.context, time.time()
        if alert.kind not in (GUESSED_FOR_ONE, GUESSED_FOR_MANY):
            return
        until = {"until": now + LOCK_SECONDS}
        lock = insert(LockRow).values(kind=alert.kind, subject=alert.subject, **until)
        with self._begin() as database:
            database.execute(lock.on_conflict_do_update(["kind", "subject"], set_=until))
            database.execute(delete(LockRow).where(LockRow.until < now))
        self._dispatcher.emit(
            AccountLocked(subject=alert.subject, kind=alert.kind, seconds=LOCK_SECONDS)
        )

    def account_of(self, token: str | None) -> Account | None:
        """Return whose session a token belongs to; None if there is none, or none any more."""
        if token is None:
            return None
        with self._begin() as database:
            session = database.get(SessionRow, _hash(token))
            if session is None:
                return None
        if session.expires_at > time.time():
            return _account(session.account)
        if not self._end(session):
            return None
        self._dispatcher.emit(
            SessionExpiredEventContext(
                user_id=session.account_id,
                email=session.account.email,
                session_duration=session.expires_at - session.began_at,
            )
        )
        return None

    def _end(self, session: SessionRow) -> bool:
        """Delete a session; tell whether it was there, and not ended by another request."""
        with self._begin() as database:
            ended = delete(SessionRow).where(SessionRow.token_hash == session.token_hash)
            return database.connection().execute(ended).rowcount > 0

    def sign_out(self, token: str | None) -> None:
        """End a session, if there is one."""
        if token is None:
            return
        with self._begin() as database:
            session = database.get(SessionRow, _hash(token))
        if session is None or not self._end(session):
            return
        self._dispatcher.emit(
            LogoutEventContext(
                user_id=session.account_id,
                email=session.account.email,
                session_duration=max(0.0, time.time() - session.began_at),
                logout_reason="by the user",
            )
        )

    def change_password(
        self, account: Account, current: str, new: str, *, address: str | None = None
    ) -> None:
        """Set another password, and end all of the account's sessions.

        Args:
            account: whose password it is.
            current: the present password, as it was typed.
            new: the next one.
            address: where the visitor comes from.

        Raises:
            Refused: the present password is wrong, was tried too often or has just been replaced,
                or the next one does not fit.
        """
        form = _checked(_NewPassword, new=new)
        with self._begin() as database:
            row = database.get_one(AccountRow, account.id)
        self._verify(row, row.email, current, address, "current")
        # The password may have been changed since it was compared: only that one is replaced.
        change = (
            update(AccountRow)
            .where(AccountRow.id == account.id, AccountRow.password_hash == row.password_hash)
            .values(password_hash=self._hasher.hash(form.new))
        )
        with self._begin() as database:
            if not database.connection().execute(change).rowcount:
                raise _wrong("current")
            database.execute(delete(SessionRow).where(SessionRow.account_id == account.id))
        self._dispatcher.emit(PasswordChangedEventContext(user_id=account.id, email=account.email))

    def demonstrate_failure(self) -> None:
        """Emit an event whose handler fails, which costs whoever calls this nothing."""
        self._dispatcher.emit(FailureRequested())

    def grant_admin(self, email: str) -> Account:
        """Make an administrator of an account.

        Raises:
            LookupError: there is no such account.
        """
        with self._begin() as database:
            row = database.scalar(
                select(AccountRow).where(AccountRow.key == normalized_email(email))
            )
            if row is None:
                raise LookupError(f"there is no account with the e-mail {email!r}: sign up first")
            row.is_admin = True
        return _account(row)


def _account(row: AccountRow) -> Account:
    return Account(row.id, row.email, row.name, row.is_admin)


def _hash(token: str) -> str:
    # The token is random, so a fast hash is enough: who reads the table cannot sign in.
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _checked(model: type[Form], **fields: str) -> Form:
    for name, value in fields.items():
        # Half of a character, which a strange form may have, can neither be stored nor hashed.
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise _unfit(name)
    try:
        return model(**fields)
    except ValidationError as error:
        raise _unfit(str(error.errors()[0]["loc"][0])) from None


def _unfit(field: str) -> Refused:
    return Refused(_WHAT_FITS[field], field)


def _wrong(field: str) -> Refused:
    return Refused(WRONG[field], field, 401)
