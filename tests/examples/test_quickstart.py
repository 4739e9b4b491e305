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
from madcrow_events.event_handlers import ALL_GROUPS
from madcrow_events.event_handlers.auth_handlers import activity_snapshot
from madcrow_events.event_handlers.security_handlers import failure_analytics
from madcrow_events.event_handlers.system_handlers import system_status

EXAMPLE = Path(__file__).parents[2] / "examples" / "quickstart.py"
STORY_PASSWORDS = ("correct horse battery staple", "two owls, one lamp", "mallory was here")
ADA = "ada@example.com"
CANARY = "canary-first-password"
NEW_CANARY = "canary-second-password"
FAILURE_LINE = "handler {module}.subscribe_to_newsletter of user_registered failed: ConnectionError"
REFUSED = "Refused: wrong e-mail or password, or the account is locked."
LOG = logging.getLogger("madcrow_events")


def load():
    spec = importlib.util.spec_from_file_location("quickstart", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def quickstart(monkeypatch):
    """The example, imported afresh, with hashing that costs the tests no time."""
    monkeypatch.setattr(LOG, "handlers", [])
    level = LOG.level
    with madcrow_signals.isolated(empty=True):
        module = load()
        monkeypatch.setattr(module, "SCRYPT_N", 2)
        yield module
    LOG.setLevel(level)


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


def everything_in(caplog):
    """The log as text, with every field of every record."""
    return caplog.text + "".join(repr(vars(record)) for record in caplog.records)


def assert_in_order(output, *expected):
    """Each expected line is a line of the output, after the one before it."""
    rest = iter(lines_of(output))
    for line in expected:
        assert line in rest, f"missing, or not in its place: {line}\n{output}"


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """What the example prints, run as its reader would, but in an empty folder."""
    folder = tmp_path_factory.mktemp("anywhere")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE)],
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert list(folder.iterdir()) == []
    return done.stdout


@pytest.mark.once
def test_the_story_runs_from_anywhere(story):
    """It ends with exit code 0, writes nothing to stderr and leaves no file behind."""
    assert_in_order(
        story,
        "The application starts.",
        "Ada registers.",
        "audit      user_registered; email=ada@example.com",
        f"log        {FAILURE_LINE.format(module='__main__')}",
        "mail       to ada@example.com: Welcome, Ada!",
        "analytics  user_registered by ada@example.com",
        "operations ConnectionError in __main__.subscribe_to_newsletter, the others have run",
        "Mallory registers as Ada.",
        "Refused: this e-mail has an account already.",
        "Ada signs in.",
        "presence   ada@example.com is here",
        "Ada changes her password.",
        "audit      password_changed; email=ada@example.com",
        "mail       to ada@example.com: You have a new password, was it you?",
        "audit      user_logged_out; email=ada@example.com; logout_reason=password changed",
        "presence   ada@example.com has left",
        "Ada comes and goes.",
        "audit      user_logged_out; email=ada@example.com; logout_reason=by the user",
        "presence   ada@example.com has left",
        *["Mallory tries the old one.", REFUSED] * 5,
        "Ada tries the right one, too late.",
        REFUSED,
        "The application ends.",
        "system     system_shutdown; reason=end of story; version=1.0; "
        "events_emitted=15; handlers_failed=1",
    )
    assert "Traceback" not in story


def test_the_fifth_wrong_password_raises_the_one_alert_which_locks_the_account(story):
    """Its causes are told, the owner was asked at the second, and the sixth raises no other."""
    attempts = "Mallory tries the old one."
    *before, fifth = story.partition("Ada tries")[0].split(attempts)[1:]
    failure = "audit      login_failed; email=ada@example.com; failure_reason=wrong password"

    assert lines_of(fifth.rstrip()) == [
        "",
        f"{failure}; attempt_count=5",
        "security   suspicious_activity; kind=brute_force; subject=ada@example.com; count=5",
        "help desk  ada@example.com is locked out and may call",
        "because of suspicious_activity",
        "because of login_failed",
        REFUSED,
    ]
    asked = "mail       to ada@example.com: 2 sign-ins failed, was it you?"
    assert [lines_of(told.rstrip())[1:-1] for told in before] == [
        [f"{failure}; attempt_count=1"],
        [f"{failure}; attempt_count=2", asked],
        [f"{failure}; attempt_count=3"],
        [f"{failure}; attempt_count=4"],
    ]
    assert story.count("suspicious_activity;") == story.count("is locked out") == 1
    late = "audit      login_failed; email=ada@example.com; failure_reason=account locked"
    assert_in_order(story, "Ada tries the right one, too late.", f"{late}; attempt_count=6")


def test_each_event_is_in_the_audit_trail_before_another_handler_acts_on_it(story):
    """After each step the first line is the trail's; nothing that was refused is in it."""
    registers = story.partition("Ada registers.")[2].partition("Mallory registers")[0]
    assert lines_of(registers)[1].startswith("audit")
    refused = story.partition("Mallory registers as Ada.")[2].partition("Ada signs in.")[0]
    assert lines_of(refused.strip()) == ["Refused: this e-mail has an account already."]
    trail = [line.split(";")[0].split()[1] for line in lines_of(story) if line.startswith("audit")]
    session = ["user_logged_in", "user_logged_out"]
    beginning = ["user_registered", "user_logged_in", "password_changed", "user_logged_out"]
    assert trail == [*beginning, *session, *["login_failed"] * 6]


def test_the_report_counts_what_the_story_tells(story):
    """It stands at the end, after the status of the application."""
    told = lines_of(story.partition("The application ends.")[2])
    assert [line for line in told if line.startswith("report")] == [
        "report     user_registered: 1",
        "report     password_changed: 1",
        "report     user_logged_in: 2",
        "report     user_logged_out: 2",
        "report     wrong password: 5",
        "report     account locked: 1",
    ]
    assert told[-2].startswith("report")


def test_the_story_is_the_same_every_time(quickstart, story, capsys):
    """No time, no id and no token is in it."""
    quickstart.main()

    assert capsys.readouterr().out == story.replace("__main__", "quickstart")


def test_the_end_of_the_application_empties_the_stores(quickstart):
    """What the ready-made handlers kept of the users is gone."""
    quickstart.main()

    assert activity_snapshot().by_user == {}
    assert failure_analytics().total == 0
    assert system_status().started_at is None


def test_the_story_shows_no_password(quickstart, capsys, caplog):
    """Neither what is printed nor what is logged, to the last detail, has one of its passwords."""
    source = EXAMPLE.read_text(encoding="utf-8")
    assert all(password in source for password in STORY_PASSWORDS)

    quickstart.main()

    shown = capsys.readouterr().out + everything_in(caplog)
    assert "user_logged_in" in shown
    assert not any(password in shown for password in STORY_PASSWORDS)


def test_the_story_is_the_same_for_other_passwords(quickstart, database, capsys, caplog):
    """Two canaries in the place of the passwords appear nowhere, and change nothing else."""
    with madcrow_signals.isolated():
        quickstart.main()
    usual = capsys.readouterr().out.partition("Ada registers.")[2].partition("The application")[0]

    service = quickstart.AccountService(database)
    quickstart.register_handlers(service)
    caplog.set_level(logging.DEBUG)
    quickstart.tell_story(service, CANARY, NEW_CANARY)

    # The dispatcher that leaves tracebacks out is the story's own.
    output = "\n".join(
        line for line in capsys.readouterr().out.splitlines() if "    log " not in line
    )
    told = output.partition("Ada registers.")[2]
    without_log = [line for line in usual.splitlines() if "    log " not in line]
    assert told.splitlines() == without_log
    assert "canary" not in output + everything_in(caplog)
    assert not any(b"canary" in line.encode() for line in database.iterdump())


def test_the_failing_handler_breaks_nothing(quickstart, service, caplog, capsys):
    """Its failure is logged once, without a traceback, and the registration stands."""
    quickstart.main()
    capsys.readouterr()
    caplog.clear()

    service.register("grace@example.com", NEW_CANARY, "Grace")

    told = [line.split()[0] for line in lines_of(capsys.readouterr().out)]
    assert told == ["audit", "log", "mail", "analytics", "operations"]
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
    with pytest.raises(quickstart.AccountError):
        service.sign_in(ADA, CANARY)
    service.lock_account(ADA)

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
        assert madcrow_signals.subscriptions == ()

        module.register_handlers(service=None)
        origins = {subscription.origin for subscription in madcrow_signals.subscriptions}
        assert origins >= {*ALL_GROUPS, module.handlers}
    assert capsys.readouterr().out == ""


def test_registering_the_handlers_twice_is_once(quickstart, service, capsys):
    """Who calls `register_handlers` again gets no second mail."""
    quickstart.register_handlers(service)
    quickstart.register_handlers(service)

    service.change_password(ADA, CANARY, NEW_CANARY)

    assert lines_of(capsys.readouterr().out) == [
        "mail       to ada@example.com: You have a new password, was it you?",
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


def test_a_locked_account_admits_nobody(quickstart, service, emissions):
    """It is told once, and from then on the right password is refused too; sessions go on."""
    token = service.sign_in(ADA, CANARY)
    service.lock_account(" Ada@example.com")
    service.lock_account(ADA)
    service.lock_account("nobody@example.com")
    for password in (CANARY, NEW_CANARY):
        with pytest.raises(quickstart.AccountError, match="locked"):
            service.sign_in(ADA, password)
    with pytest.raises(quickstart.AccountError, match="locked"):
        service.change_password(ADA, CANARY, NEW_CANARY)

    assert names(emissions) == ["user_logged_in", "account_locked", *["login_failed"] * 3]
    assert emissions[1].context.email == ADA
    assert {e.context.failure_reason for e in emissions[2:]} == {"account locked"}
    assert service.signed_in(token) == ADA


def test_a_lock_that_comes_while_the_password_is_checked_holds(quickstart, service, monkeypatch):
    """The right password does not slip through between the look and the count."""
    digest = quickstart._digest

    def locked_meanwhile(password, salt):
        service.lock_account(ADA)
        return digest(password, salt)

    monkeypatch.setattr(quickstart, "_digest", locked_meanwhile)

    with pytest.raises(quickstart.AccountError, match="locked"):
        service.sign_in(ADA, CANARY)


def test_the_service_by_itself_locks_nothing(quickstart, service, emissions):
    """What many failures mean is decided by whoever listens."""
    for _ in range(10):
        with pytest.raises(quickstart.AccountError):
            service.sign_in(ADA, NEW_CANARY)

    assert service.sign_in(ADA, CANARY)
    assert "account_locked" not in names(emissions)


@pytest.mark.parametrize("email", [ADA, "straße@example.com", "\uff27race@Example.com"])
def test_an_alert_locks_the_account_that_is_attacked(quickstart, service, emissions, email):
    """In whatever letters its e-mail is written."""
    if email != ADA:
        service.register(email, CANARY, "Somebody")
    quickstart.register_handlers(service)
    for _ in range(5):
        with pytest.raises(quickstart.AccountError):
            service.sign_in(email.upper(), NEW_CANARY)
    with pytest.raises(quickstart.AccountError):
        service.sign_in(email, CANARY)

    events = [emission.event for emission in emissions]
    assert events.count("suspicious_activity") == events.count("account_locked") == 1
    assert emissions[-1].context.failure_reason == "account locked"


def test_an_attack_on_nobody_locks_nothing(quickstart, service, emissions):
    """An alert for an e-mail without an account is an alert, and no more."""
    quickstart.register_handlers(service)
    for _ in range(5):
        with pytest.raises(quickstart.AccountError):
            service.sign_in("nobody@example.com", CANARY)

    events = names(emissions)
    assert events.count("suspicious_activity") == 1
    assert "account_locked" not in events


def test_an_alert_of_another_kind_locks_nothing(quickstart, service, emissions):
    """Its subject may be an address."""
    quickstart.register_handlers(service)
    madcrow_signals["suspicious_activity"].send(None, kind="many_accounts", subject=ADA, count=5)

    assert names(emissions) == ["suspicious_activity"]


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
