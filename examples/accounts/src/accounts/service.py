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
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from accounts.database import AccountRow, LockRow, SessionRow, open_database
from accounts.events import AccountLockedEventContext, account_locked
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
    login_failed,
    password_changed,
    session_expired,
    suspicious_activity,
    user_logged_in,
    user_logged_out,
    user_registered,
)
from madcrow_events.event_handlers.security_handlers import normalized_email

HOUR = 3600.0  # seconds
SESSION_SECONDS = 12 * HOUR
REMEMBERED_SECONDS = 30 * 24 * HOUR
LOCK_SECONDS = HOUR / 4
LOCKING = ("brute_force", "many_accounts")
"""The kinds of suspicious activity after which nobody can sign in for a while."""


class Refused(Exception):  # noqa: N818  # it is an answer
    """What was asked for is not done; the text says why, for the person who asked.

    Attributes:
        status: the HTTP status that fits.
    """

    def __init__(self, text: str, status: int = 422) -> None:
        super().__init__(text)
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
_Password = Annotated[str, StringConstraints(min_length=12, max_length=128)]


class _Registration(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    email: Annotated[EmailStr, StringConstraints(max_length=254)]
    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
    password: _Password


class _NewPassword(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    password: _Password


_WHAT_FITS = {
    "email": "Enter an e-mail address, such as ada@example.com.",
    "name": "Enter a name of 1 to 100 characters.",
    "password": "Choose a password of 12 to 128 characters.",
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
        # Held weakly, as bound methods are: it ends with this object.
        dispatcher.signals.subscribe(suspicious_activity, self.lock_out)

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
            raise Refused("There is an account with this e-mail already.", 409) from None
        account = _account(row)
        self._dispatcher.emit_typed(
            user_registered,
            RegistrationEventContext(
                user_id=account.id, email=account.email, name=account.name, account_status="active"
            ),
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
        key = normalized_email(email)
        with self._begin() as database:
            row = database.scalar(select(AccountRow).where(AccountRow.key == key))
        self._verify(row, email, password, address)
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
        self._dispatcher.emit_typed(
            user_logged_in,
            LoginEventContext(
                user_id=row.id,
                email=row.email,
                name=row.name,
                is_admin=row.is_admin,
                remember_me=remember_me,
            ),
        )
        return SignedIn(token, int(seconds) if remember_me else None)

    def _verify(
        self, row: AccountRow | None, email: str, password: str, address: str | None
    ) -> None:
        """Compare a password, unless guessing is going on.

        Raises:
            Refused: it is wrong, or was tried too often.
        """
        subjects = [normalized_email(email), *([] if address is None else [address])]
        with self._begin() as database:
            is_locked = database.scalar(
                select(LockRow).where(LockRow.subject.in_(subjects), LockRow.until > time.time())
            )
        if is_locked:
            self._fail(email, "locked")
            raise Refused("Too many attempts have failed. Try again in 15 minutes.", 429)
        try:
            self._hasher.verify(self._nobodys_hash if row is None else row.password_hash, password)
        except VerifyMismatchError:
            self._fail(email, "no such account" if row is None else "wrong password")
            raise Refused("E-mail or password is wrong.", 401) from None

    def _fail(self, email: str, reason: str) -> None:
        self._dispatcher.emit_typed(
            login_failed, LoginFailedEventContext(email=email, failure_reason=reason)
        )

    def lock_out(self, emission: Emission[SuspiciousActivityEventContext]) -> None:
        """Refuse sign-ins for a while; handles `suspicious_activity`.

        It is called where the event goes out, so that the next attempt is refused already.
        """
        alert = emission.context
        if alert.kind not in LOCKING:
            return
        with self._begin() as database:
            database.merge(LockRow(subject=alert.subject, until=time.time() + LOCK_SECONDS))
            database.execute(delete(LockRow).where(LockRow.until < time.time()))
        context = AccountLockedEventContext(
            subject=alert.subject, kind=alert.kind, seconds=LOCK_SECONDS
        )
        self._dispatcher.emit_typed(account_locked, context)

    def account_of(self, token: str | None) -> Account | None:
        """Return whose session a token belongs to; None if there is none, or none any more."""
        if token is None:
            return None
        with self._begin() as database:
            session = database.get(SessionRow, _hash(token))
            if session is None:
                return None
            has_expired = session.expires_at <= time.time()
            if has_expired:
                database.delete(session)
        if not has_expired:
            return _account(session.account)
        self._dispatcher.emit_typed(
            session_expired,
            SessionExpiredEventContext(
                user_id=session.account_id,
                email=session.account.email,
                session_duration=session.expires_at - session.began_at,
            ),
        )
        return None

    def sign_out(self, token: str | None) -> None:
        """End a session, if there is one."""
        if token is None:
            return
        with self._begin() as database:
            session = database.get(SessionRow, _hash(token))
            if session is None:
                return
            database.delete(session)
        self._dispatcher.emit_typed(
            user_logged_out,
            LogoutEventContext(
                user_id=session.account_id,
                email=session.account.email,
                session_duration=max(0.0, time.time() - session.began_at),
                logout_reason="by the user",
            ),
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
            Refused: the present password is wrong or was tried too often, or the next one does
                not fit.
        """
        form = _checked(_NewPassword, password=new)
        with self._begin() as database:
            row = database.get_one(AccountRow, account.id)
        self._verify(row, row.email, current, address)
        with self._begin() as database:
            database.get_one(AccountRow, account.id).password_hash = self._hasher.hash(
                form.password
            )
            database.execute(delete(SessionRow).where(SessionRow.account_id == account.id))
        self._dispatcher.emit_typed(
            password_changed, PasswordChangedEventContext(user_id=account.id, email=account.email)
        )

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
    try:
        return model(**fields)
    except ValidationError as error:
        raise Refused(_WHAT_FITS[str(error.errors()[0]["loc"][0])]) from None
