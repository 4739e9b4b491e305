"""The quickstart example: its story as it is run, and the account service that it tells it with."""

import importlib.util
import logging
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from madcrow_events import Emission, madcrow_signals, on_event

EXAMPLE = Path(__file__).parents[2] / "examples" / "quickstart.py"
STORY_PASSWORDS = ("correct horse battery staple", "two owls, one lamp", "mallory was here")
ADA = "ada@example.com"
CANARY = "canary-first-password"
NEW_CANARY = "canary-second-password"
FAILURE_LINE = "handler {module}.subscribe_to_newsletter of user_registered failed: ConnectionError"


def load():
    spec = importlib.util.spec_from_file_location("quickstart", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def quickstart(monkeypatch):
    """The example, imported afresh, with hashing that costs the tests no time."""
    with madcrow_signals.isolated(empty=True):
        module = load()
        monkeypatch.setattr(module, "SCRYPT_N", 2)
        yield module


@pytest.fixture
def database():
    with closing(sqlite3.connect(":memory:")) as connection:
        yield connection


@pytest.fixture
def service(quickstart, database):
    """The account service with Ada registered, and no handler."""
    accounts = quickstart.AccountService(database)
    accounts.register(ADA, CANARY, "Ada")
    return accounts


@pytest.fixture
def emissions(service):
    """What the service emits from here on."""
    seen = []

    @on_event("*")
    def keep(emission: Emission) -> None:
        seen.append(emission)

    return seen


def names(emissions):
    assert all(emission.ok for emission in emissions)
    return [emission.event for emission in emissions]


def lines_of(output):
    return [line.strip() for line in output.splitlines()]


def assert_in_order(output, *expected):
    """Each expected line is a line of the output, after the one before it."""
    rest = iter(lines_of(output))
    for line in expected:
        assert line in rest, f"missing, or not in its place: {line}\n{output}"


def test_the_story_runs_from_anywhere(tmp_path):
    """It ends with exit code 0, writes nothing to stderr and leaves no file behind."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )

    assert done.stderr == ""
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []
    assert_in_order(
        done.stdout,
        "Ada registers.",
        "audit      user_registered",
        f"log        ERROR {FAILURE_LINE.format(module='__main__')}",
        "mail       to ada@example.com: Welcome, Ada!",
        "analytics  user_registered by ada@example.com",
        "website    shows one more member",
        "operations subscribe_to_newsletter failed with ConnectionError, the others have run",
        "Mallory registers with the same e-mail.",
        "Refused: this e-mail has an account already.",
        "Ada signs in.",
        "presence   Ada is here",
        "Ada changes her password.",
        "mail       to ada@example.com: password_changed, was it you?",
        "presence   ada@example.com has left (password changed)",
        "Ada signs in with the new one, and out.",
        "presence   ada@example.com has left (by the user)",
        "Mallory tries the old one.",
        "statistics refusal 1: wrong password",
        "Refused: wrong e-mail or password, or the account is locked.",
        "mail       to ada@example.com: login_failed 2 times, was it you?",
        "mail       to ada@example.com: login_failed 3 times, was it you?",
        "audit      account_locked",
        "help desk  ada@example.com is locked out and may call",
        "Ada tries the right one, too late.",
        "statistics refusal 4: account locked",
        "Refused: wrong e-mail or password, or the account is locked.",
        "The end: 4 sign-ins refused, no request lost to a broken handler.",
    )
    assert "login_failed 1 times" not in done.stdout
    assert "Traceback" not in done.stdout


def test_the_story_shows_no_password(quickstart, capsys, caplog):
    """Neither what is printed nor what is logged has one of its passwords."""
    source = EXAMPLE.read_text(encoding="utf-8")
    assert all(password in source for password in STORY_PASSWORDS)

    with caplog.at_level(logging.DEBUG):
        quickstart.main()

    shown = capsys.readouterr().out + caplog.text
    assert "user_logged_in" in shown
    assert not any(password in shown for password in STORY_PASSWORDS)


def test_the_story_is_the_same_for_other_passwords(quickstart, database, capsys, caplog):
    """Two canaries in the place of the passwords appear nowhere, and change nothing else."""
    quickstart.main()
    usual, _, _ = capsys.readouterr().out.rpartition("The end")
    madcrow_signals.clear_handlers()

    with caplog.at_level(logging.DEBUG):
        statistics = quickstart.Statistics()
        quickstart.register_handlers(statistics)
        quickstart.tell_story(quickstart.AccountService(database), CANARY, NEW_CANARY)

    output = capsys.readouterr().out
    assert output == usual
    assert "canary" not in output + caplog.text
    assert not any(b"canary" in line.encode() for line in database.iterdump())


def test_the_failing_handler_breaks_nothing(quickstart, service, caplog, capsys):
    """Its failure is logged once, without a traceback, and the registration stands."""
    quickstart.main()
    capsys.readouterr()
    caplog.clear()

    service.register("grace@example.com", NEW_CANARY, "Grace")

    told = [line.split()[0] for line in lines_of(capsys.readouterr().out)]
    assert told == ["audit", "mail", "analytics", "website", "operations"]
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.getMessage() == FAILURE_LINE.format(module="quickstart")
    assert record.exc_info is None
    assert service.signed_in(service.sign_in("grace@example.com", NEW_CANARY)) is not None


def test_no_request_is_lost_to_a_handler_that_always_fails(quickstart, service):
    """The service does all its work though every one of its events has a broken handler."""
    failed = []

    @on_event("*")
    def broken(emission: Emission) -> None:
        failed.append(emission.event)
        raise RuntimeError

    service.register("grace@example.com", CANARY, "Grace")
    service.sign_out(service.sign_in(ADA, CANARY))
    token = service.sign_in(ADA, CANARY)
    service.change_password(ADA, CANARY, NEW_CANARY)
    assert service.signed_in(token) is None
    for _ in range(quickstart.MAX_ATTEMPTS):
        with pytest.raises(quickstart.AccountError):
            service.sign_in(ADA, CANARY)

    assert set(failed) == {
        "user_registered",
        "user_logged_in",
        "user_logged_out",
        "password_changed",
        "login_failed",
        "account_locked",
    }


def test_an_event_is_emitted_after_its_commit(quickstart, tmp_path):
    """A handler that looks from outside finds what the event says."""
    path = tmp_path / "accounts.db"
    found = []

    def look(emission: Emission) -> None:
        with closing(sqlite3.connect(path)) as outside:
            counts = outside.execute(
                "SELECT (SELECT count(*) FROM accounts), (SELECT count(*) FROM sessions),"
                " (SELECT sum(failures) FROM accounts)"
            ).fetchone()
        found.append((emission.event, *counts))

    with closing(sqlite3.connect(path)) as database:
        service = quickstart.AccountService(database)
        on_event("*")(look)
        service.register(ADA, CANARY, "Ada")
        token = service.sign_in(ADA, CANARY)
        with pytest.raises(quickstart.AccountError):
            service.sign_in(ADA, NEW_CANARY)
        service.sign_out(token)
        service.sign_in(ADA, CANARY)
        service.change_password(ADA, CANARY, NEW_CANARY)

    assert found == [
        ("user_registered", 1, 0, 0),
        ("user_logged_in", 1, 1, 0),
        ("login_failed", 1, 1, 1),
        ("user_logged_out", 1, 0, 1),
        ("user_logged_in", 1, 1, 0),
        ("password_changed", 1, 0, 0),
        ("user_logged_out", 1, 0, 0),
    ]


def test_importing_it_registers_no_handler(capsys):
    """It declares its event; its handlers wait for `register_handlers`."""
    with madcrow_signals.isolated(empty=True):
        module = load()

        assert "account_locked" in madcrow_signals
        assert not any(signal.subscriptions for signal in madcrow_signals.values())

        module.register_handlers(module.Statistics())
        assert madcrow_signals["user_registered"].subscriptions
    assert capsys.readouterr().out == ""


def test_registering_the_handlers_twice_is_once(quickstart, service, capsys):
    """Who calls `register_handlers` again gets no second mail."""
    statistics = quickstart.Statistics()
    quickstart.register_handlers(statistics)
    quickstart.register_handlers(statistics)

    service.change_password(ADA, CANARY, NEW_CANARY)

    assert lines_of(capsys.readouterr().out) == [
        "audit      password_changed",
        "mail       to ada@example.com: password_changed, was it you?",
    ]


def test_registering_opens_an_account(service, emissions):
    """The event carries who it is, and the e-mail in small letters."""
    service.register("  Grace@Example.com ", NEW_CANARY, "Grace")

    [emission] = emissions
    assert emission.event == "user_registered"
    assert (emission.context.email, emission.context.name) == ("grace@example.com", "Grace")
    assert "canary" not in str(emission.context)


def test_an_email_has_one_account(quickstart, service, emissions):
    """A second registration is refused in any spelling, without an event."""
    for spelling in (ADA, " ADA@example.com"):
        with pytest.raises(quickstart.AccountError, match="already"):
            service.register(spelling, NEW_CANARY, "Mallory")

    assert emissions == []
    assert service.sign_in(ADA, CANARY)


@pytest.mark.parametrize("password", ["", "seven77"])
def test_a_short_password_is_refused(quickstart, service, emissions, password):
    """Neither a new account nor a new password of an old one may have it."""
    with pytest.raises(quickstart.AccountError, match="8 characters"):
        service.register("grace@example.com", password, "Grace")
    token = service.sign_in(ADA, CANARY)
    with pytest.raises(quickstart.AccountError, match="8 characters"):
        service.change_password(ADA, CANARY, password)

    assert names(emissions) == ["user_logged_in"]
    assert service.signed_in(token) == ADA


def test_equal_passwords_are_stored_differently(service, database):
    """Each has a salt of its own, and is not stored itself."""
    service.register("grace@example.com", CANARY, "Grace")

    rows = database.execute("SELECT salt, digest FROM accounts").fetchall()

    assert len(set(rows)) == 2
    assert len({salt for salt, _ in rows}) == 2
    assert len({digest for _, digest in rows}) == 2
    assert not any(CANARY.encode() in value for row in rows for value in row)


def test_signing_in_gives_a_session(service, database, emissions):
    """Its token is known by its digest alone."""
    token = service.sign_in(" Ada@example.com", CANARY)

    assert service.signed_in(token) == ADA
    assert service.signed_in("another token") is None
    assert names(emissions) == ["user_logged_in"]
    assert emissions[0].context.name == "Ada"
    assert not any(token in line for line in database.iterdump())


def test_signing_out_ends_that_session_only(service, emissions):
    """Doing so again is no error, and no event."""
    first, second = service.sign_in(ADA, CANARY), service.sign_in(ADA, CANARY)

    service.sign_out(first)
    service.sign_out(first)

    assert service.signed_in(first) is None
    assert service.signed_in(second) == ADA
    assert names(emissions) == ["user_logged_in", "user_logged_in", "user_logged_out"]
    assert emissions[-1].context.logout_reason == "by the user"


def test_a_wrong_password_is_refused_and_counted(quickstart, service, emissions):
    """The right one starts the count again."""
    for _ in range(2):
        with pytest.raises(quickstart.AccountError, match="wrong e-mail or password"):
            service.sign_in(ADA, NEW_CANARY)
    service.sign_in(ADA, CANARY)
    with pytest.raises(quickstart.AccountError):
        service.sign_in(ADA, NEW_CANARY)

    refused = [emission for emission in emissions if emission.event == "login_failed"]
    assert [emission.context.attempt_count for emission in refused] == [1, 2, 1]
    assert {emission.context.failure_reason for emission in refused} == {"wrong password"}
    assert names(emissions).count("user_logged_in") == 1


def test_an_unknown_email_is_refused_in_the_same_words(quickstart, service, emissions):
    """Only the event tells what was wrong, not the answer."""
    with pytest.raises(quickstart.AccountError) as known:
        service.sign_in(ADA, NEW_CANARY)
    with pytest.raises(quickstart.AccountError) as unknown:
        service.sign_in("nobody@example.com", NEW_CANARY)

    assert str(unknown.value) == str(known.value)
    assert emissions[-1].context.failure_reason == "no account"
    assert emissions[-1].context.attempt_count == 1


def test_the_stand_in_for_an_unknown_account_opens_nothing(quickstart, service, monkeypatch):
    """Even a password that fits its digest is refused."""
    monkeypatch.setattr(quickstart, "_digest", lambda _password, _salt: bytes(32))

    with pytest.raises(quickstart.AccountError):
        service.sign_in("nobody@example.com", CANARY)


def test_too_many_wrong_passwords_lock_the_account(quickstart, service, emissions):
    """It is told once, and from then on the right one is refused too."""
    for password in (NEW_CANARY, NEW_CANARY, NEW_CANARY, NEW_CANARY, CANARY):
        with pytest.raises(quickstart.AccountError):
            service.sign_in(ADA, password)
    with pytest.raises(quickstart.AccountError):
        service.change_password(ADA, CANARY, NEW_CANARY)

    assert names(emissions).count("account_locked") == 1
    reasons = [
        emission.context.failure_reason
        for emission in emissions
        if emission.event == "login_failed"
    ]
    assert reasons == ["wrong password"] * 3 + ["account locked"] * 3


def test_a_changed_password_replaces_the_old_one(quickstart, service, emissions):
    """It ends every session, and each end is an event."""
    tokens = [service.sign_in(ADA, CANARY), service.sign_in(ADA, CANARY)]

    service.change_password(ADA, CANARY, NEW_CANARY)

    assert [service.signed_in(token) for token in tokens] == [None, None]
    with pytest.raises(quickstart.AccountError):
        service.sign_in(ADA, CANARY)
    assert service.signed_in(service.sign_in(ADA, NEW_CANARY)) == ADA
    assert names(emissions) == [
        "user_logged_in",
        "user_logged_in",
        "password_changed",
        "user_logged_out",
        "user_logged_out",
        "login_failed",
        "user_logged_in",
    ]
    assert emissions[3].context.logout_reason == "password changed"


def test_changing_a_password_needs_the_old_one(quickstart, service, emissions):
    """A wrong one is refused and counted, and leaves everything as it was."""
    token = service.sign_in(ADA, CANARY)

    with pytest.raises(quickstart.AccountError):
        service.change_password(ADA, NEW_CANARY, "another-password")

    assert names(emissions) == ["user_logged_in", "login_failed"]
    assert service.signed_in(token) == ADA
    assert service.sign_in(ADA, CANARY)
