"""Accounts do what is asked for, say what has happened, and keep their secrets."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from accounts import Account, Accounts, Refused, service
from accounts.events import fail_on_purpose

from madcrow_events import EventDispatcher
from madcrow_events.testing import record_events

PASSWORD = "canary of a password"
OTHER = "another long password"
EMAIL = "Ada@example.com"


def signed_up(accounts: Accounts) -> Account:
    return accounts.sign_up(EMAIL, " Ada ", PASSWORD)


def test_each_step_is_an_event(accounts: Accounts) -> None:
    """From signing up to another password, in whatever case the e-mail is typed."""
    with record_events() as recorded:
        account = signed_up(accounts)
        token = accounts.sign_in("ada@EXAMPLE.com", PASSWORD, remember_me=True).token
        assert accounts.account_of(token) == account == (1, EMAIL, "Ada", False)
        accounts.sign_out(token)
        accounts.change_password(account, PASSWORD, OTHER)
        with pytest.raises(Refused):
            accounts.sign_in(EMAIL, PASSWORD)
        accounts.sign_in(EMAIL, OTHER)
    assert [event.event for event in recorded.emissions] == [
        "user_registered",
        "user_logged_in",
        "user_logged_out",
        "password_changed",
        "login_failed",
        "user_logged_in",
    ]
    assert recorded.emissions[1].context.remember_me
    assert PASSWORD not in str([event.context for event in recorded.emissions])


def test_a_session_ends_with_sign_out_time_and_password(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of several sessions, and for good."""
    account = signed_up(accounts)
    first, second, third = (accounts.sign_in(EMAIL, PASSWORD).token for _ in range(3))
    accounts.sign_out(first)
    assert accounts.account_of(first) is None
    assert accounts.account_of(second) == account
    with record_events() as recorded, monkeypatch.context() as later:
        now = time.time()
        later.setattr(service.time, "time", lambda: now + service.SESSION_SECONDS + 1)
        assert accounts.account_of(second) is None
        assert accounts.account_of(second) is None
    assert [event.event for event in recorded.emissions] == ["session_expired"]
    accounts.change_password(account, PASSWORD, OTHER)
    assert accounts.account_of(third) is None
    assert accounts.account_of("no such token") is None
    assert accounts.account_of(None) is None
    accounts.sign_out(third)
    accounts.sign_out(None)


@pytest.mark.parametrize(
    ("email", "name", "password", "word"),
    [
        ("ada", "Ada", PASSWORD, "e-mail"),
        (f"{'a' * 300}@example.com", "Ada", PASSWORD, "e-mail"),
        (EMAIL, "  ", PASSWORD, "name"),
        (EMAIL, "Ada\x1b[2J", PASSWORD, "name"),
        (EMAIL, "\ud800", PASSWORD, "name"),
        ("\ud800@example.com", "Ada", PASSWORD, "e-mail"),
        (EMAIL, "Ada", "\ud800" * 12, "12 to 128"),
        (EMAIL, "Ada", "short", "12 to 128"),
        (EMAIL, "Ada", "x" * 129, "12 to 128"),
    ],
)
def test_what_does_not_fit_is_refused(
    accounts: Accounts, email: str, name: str, password: str, word: str
) -> None:
    """The text says what fits, and nothing is emitted."""
    with record_events() as recorded, pytest.raises(Refused, match=word) as refused:
        accounts.sign_up(email, name, password)
    assert refused.value.status == 422
    assert password not in str(refused.value)
    assert not recorded.emissions


def test_an_email_has_one_account(accounts: Accounts) -> None:
    signed_up(accounts)
    with pytest.raises(Refused, match="already") as refused:
        accounts.sign_up("ADA@example.COM", "Eve", PASSWORD)
    assert refused.value.status == 409


@pytest.mark.parametrize("email", [EMAIL, "nobody@example.com"])
def test_guessing_is_locked_out(
    accounts: Accounts, dispatcher: EventDispatcher, email: str
) -> None:
    """Then the right password is refused, too; an e-mail without an account is no different."""
    signed_up(accounts)
    with record_events() as recorded:
        for _ in range(5):
            with pytest.raises(Refused) as refused:
                accounts.sign_in(email, "a guess")
            assert refused.value.status == 401
        assert dispatcher.drain(5)
        with pytest.raises(Refused, match="15 minutes") as refused:
            accounts.sign_in(email, PASSWORD)
    assert refused.value.status == 429
    locked = [event for event in recorded.emissions if event.event == "account_locked"]
    assert [(event.context.kind, event.context.seconds) for event in locked] == [
        ("brute_force", 900.0)
    ]


def test_the_lock_opens_by_itself(
    accounts: Accounts, dispatcher: EventDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed_up(accounts)
    for _ in range(5):
        with pytest.raises(Refused):
            accounts.sign_in(EMAIL, "a guess")
    assert dispatcher.drain(5)
    now = time.time()
    monkeypatch.setattr(service.time, "time", lambda: now + service.LOCK_SECONDS + 1)
    assert accounts.sign_in(EMAIL, PASSWORD).token


def test_an_address_that_tries_many_accounts_is_locked_out(
    accounts: Accounts, dispatcher: EventDispatcher
) -> None:
    """Whoever comes from elsewhere signs in."""
    signed_up(accounts)
    for number in range(5):
        dispatcher.emit(
            "login_failed",
            email=f"{number}@example.com",
            failure_reason="wrong password",
            ip_address="192.0.2.9",
        )
    assert dispatcher.drain(5)
    with pytest.raises(Refused, match="15 minutes"):
        accounts.sign_in(EMAIL, PASSWORD, address="192.0.2.9")
    assert accounts.sign_in(EMAIL, PASSWORD, address="192.0.2.1").token


def test_a_wrong_present_password_counts_as_guessing(
    accounts: Accounts, dispatcher: EventDispatcher
) -> None:
    """Who has found a session open cannot try passwords for ever."""
    account = signed_up(accounts)
    for _ in range(5):
        with pytest.raises(Refused, match="wrong"):
            accounts.change_password(account, "a guess", OTHER)
    assert dispatcher.drain(5)
    with pytest.raises(Refused, match="15 minutes"):
        accounts.change_password(account, PASSWORD, OTHER)


def test_the_database_shows_no_secret(accounts: Accounts, tmp_path: Path) -> None:
    """Neither a password nor what is in a cookie."""
    signed_up(accounts)
    token = accounts.sign_in(EMAIL, PASSWORD).token
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert PASSWORD.encode() not in written
    assert token.encode() not in written


def test_an_administrator_is_made_of_an_account(accounts: Accounts) -> None:
    with pytest.raises(LookupError, match="sign up first"):
        accounts.grant_admin(EMAIL)
    signed_up(accounts)
    token = accounts.sign_in(EMAIL, PASSWORD).token
    assert accounts.grant_admin("ada@example.com").is_admin
    seen = accounts.account_of(token)
    assert seen is not None
    assert seen.is_admin


def test_an_address_that_is_typed_as_an_email_locks_nobody_out(
    accounts: Accounts, dispatcher: EventDispatcher
) -> None:
    """What is no e-mail is refused without an event; nor does one name reach into the other."""
    signed_up(accounts)
    with record_events() as recorded:
        for email in ("192.0.2.1", PASSWORD, "\ud800"):
            with pytest.raises(Refused, match="e-mail") as refused:
                accounts.sign_in(email, "a guess", address="192.0.2.1")
            assert refused.value.status == 422
    assert not recorded.emissions
    for _ in range(5):
        dispatcher.emit("login_failed", email="192.0.2.1", failure_reason="wrong password")
    assert dispatcher.drain(5)
    assert accounts.sign_in(EMAIL, PASSWORD, address="192.0.2.1").token


@pytest.mark.parametrize("typed", ["\ud800" * 12, "x\0" * 8])
def test_a_strange_password_is_a_wrong_one(accounts: Accounts, typed: str) -> None:
    account = signed_up(accounts)
    with pytest.raises(Refused, match="wrong"):
        accounts.sign_in(EMAIL, typed)
    with pytest.raises(Refused, match="wrong"):
        accounts.change_password(account, typed, OTHER)


def test_a_sign_in_with_the_old_password_does_not_outlive_it(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it was compared before the password changed."""
    account = signed_up(accounts)
    verify = Accounts._verify

    def verify_then_wait(*arguments: Any) -> None:
        verify(*arguments)
        monkeypatch.undo()
        accounts.change_password(account, PASSWORD, OTHER)

    monkeypatch.setattr(Accounts, "_verify", verify_then_wait)
    with pytest.raises(Refused, match="wrong"):
        accounts.sign_in(EMAIL, PASSWORD)
    assert accounts.sign_in(EMAIL, OTHER).token


def test_of_two_changes_of_a_password_at_once_the_second_sees_the_first(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused, for the password that it was given is no longer the present one."""
    account = signed_up(accounts)
    both_have_compared = threading.Barrier(2)
    verify = Accounts._verify

    def verify_then_wait(*arguments: Any) -> None:
        verify(*arguments)
        both_have_compared.wait(10)

    def change(new: str) -> str:
        try:
            accounts.change_password(account, PASSWORD, new)
        except Refused as refusal:
            return str(refusal)
        return new

    with monkeypatch.context() as waiting, record_events() as recorded:
        waiting.setattr(Accounts, "_verify", verify_then_wait)
        with ThreadPoolExecutor(2) as pool:
            outcomes = set(pool.map(change, [OTHER, f"{OTHER} still"]))
    assert service.WRONG["current"] in outcomes
    (changed,) = outcomes - {service.WRONG["current"]}
    assert [event.event for event in recorded.emissions] == ["password_changed"]
    assert accounts.sign_in(EMAIL, changed).token


def test_a_handler_fails_when_it_is_asked_to(accounts: Accounts) -> None:
    """The request succeeds, and no account is involved."""
    with record_events() as recorded:
        accounts.demonstrate_failure()
    requested, failed = recorded.emissions
    assert (requested.event, failed.event) == ("failure_requested", "handler_failed")
    ((handler, error),) = requested.failures
    assert (handler, type(error)) == (fail_on_purpose, RuntimeError)
    assert requested.context.model_dump(exclude={"timestamp"}, exclude_none=True) == {}


def test_a_session_ends_once(accounts: Accounts) -> None:
    """Of several requests that sign out at the same time, one is told of."""
    signed_up(accounts)
    token = accounts.sign_in(EMAIL, PASSWORD).token
    with record_events() as recorded, ThreadPoolExecutor(8) as pool:
        list(pool.map(accounts.sign_out, [token] * 8))
    assert [event.event for event in recorded.emissions] == ["user_logged_out"]


def test_a_lock_that_comes_while_a_password_is_compared_counts(
    accounts: Accounts, dispatcher: EventDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that many guesses at the same moment tell little: the right one is refused, too."""
    signed_up(accounts)

    class Hasher:
        def verify(self, _hash: str, _password: str) -> None:
            dispatcher.emit(
                "suspicious_activity", kind="brute_force", subject=EMAIL.lower(), count=5
            )
            assert dispatcher.drain(5)

    monkeypatch.setattr(accounts, "_hasher", Hasher())
    with pytest.raises(Refused, match="15 minutes"):
        accounts.sign_in(EMAIL, PASSWORD)
