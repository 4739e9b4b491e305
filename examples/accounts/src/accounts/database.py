"""The tables, and how they are opened."""

from pathlib import Path
from typing import Any

from sqlalchemy import ForeignKey, create_engine, event
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
    sessionmaker,
)
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateTable


class Table(DeclarativeBase):
    """What all tables have in common."""


class AccountRow(Table):
    """An account.

    Attributes:
        key: its e-mail in the form in which e-mails are compared.
        password_hash: by argon2.
    """

    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    email: Mapped[str]
    name: Mapped[str]
    password_hash: Mapped[str]
    is_admin: Mapped[bool] = mapped_column(default=False)


class SessionRow(Table):
    """A session of somebody who has signed in.

    Attributes:
        token_hash: of the token that only the visitor's cookie holds.
        began_at: in seconds since 1970.
        expires_at: likewise.
    """

    __tablename__ = "sessions"

    token_hash: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    began_at: Mapped[float]
    expires_at: Mapped[float]
    account: Mapped[AccountRow] = relationship(lazy="joined")


class LockRow(Table):
    """An e-mail with which, or an address from which, nobody can sign in until a time.

    Attributes:
        kind: of the suspicious activity: whether the subject is an e-mail or an address. It is part
            of the key, for anybody can type an address as an e-mail.
        subject: the one or the other.
        until: in seconds since 1970.
    """

    __tablename__ = "locks"

    kind: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    until: Mapped[float]


def open_database(file: Path) -> sessionmaker[Session]:
    """Make what is missing of the database; return what begins sessions with it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # A connection for each use: none is left open, shared by threads, or inherited by a fork.
    engine = create_engine(f"sqlite:///{file}", poolclass=NullPool)
    event.listen(engine, "connect", _prepare)
    with engine.begin() as connection:
        for table in Table.metadata.sorted_tables:
            # Several processes may start at the same time.
            connection.execute(CreateTable(table, if_not_exists=True))
    return sessionmaker(engine, expire_on_commit=False)


def _prepare(connection: Any, _record: Any) -> None:
    # Readers do not wait for the writer; what is lost in a power cut is the last moment.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA busy_timeout = 5000")
    connection.execute("PRAGMA foreign_keys = ON")
