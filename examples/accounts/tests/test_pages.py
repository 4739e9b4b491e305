"""Pages refuse forms of other sites and cookies of others, and show text as text."""

import re

import pytest
from accounts import Accounts, Pages, Reply, Visit

from madcrow_events import EventDispatcher, SuspiciousActivityEventContext

PASSWORD = "canary of a password"
EMAIL = "ada@example.com"
KEY = "not a secret, for it is only used by tests"


@pytest.fixture
def pages(accounts: Accounts) -> Pages:
    return Pages(accounts, KEY)


@pytest.fixture
def stranger(pages: Pages) -> Visit:
    return pages.visit({}, "192.0.2.1", is_https=True)


def cookie_of(reply: Reply) -> str:
    return reply.headers["Set-Cookie"].partition("=")[2].partition(";")[0]


def at_fault(reply: Reply) -> tuple[list[str], list[str], str]:
    """Return the fields that are marked as wrong, those with the focus, and the message."""
    tags = re.findall(r"<(?:input|p)\b[^>]*>", reply.body)

    def ids(attribute: str) -> list[str]:
        return re.findall(r'\bid="([^"]+)"', " ".join(tag for tag in tags if attribute in tag))

    (error, message) = re.findall(r'<p class="error" id="([^"]+)"[^>]*>([^<]+)</p>', reply.body)[0]
    wrong = ids("aria-invalid")
    for field in wrong:
        (tag,) = (tag for tag in tags if f'id="{field}"' in tag)
        assert error == f"{field}-error"
        assert re.search(f'aria-describedby="{error}( |")', tag)
    return wrong, ids("autofocus"), message


@pytest.mark.parametrize(
    ("method", "headers", "is_forged"),
    [
        ("GET", {}, False),
        ("HEAD", {"Sec-Fetch-Site": "cross-site"}, False),
        ("POST", {"Sec-Fetch-Site": "same-origin"}, False),
        ("POST", {"Sec-Fetch-Site": "cross-site"}, True),
        ("POST", {"Sec-Fetch-Site": "same-site", "Origin": "https://us.example"}, True),
        ("POST", {"Origin": "https://us.example"}, False),
        ("POST", {"Origin": "https://us.example.evil.example"}, True),
        ("POST", {"Origin": "null"}, True),
        ("POST", {"Origin": "https://[us.example"}, True),
        ("POST", {}, True),
        ("PATCH", {}, True),
    ],
)
def test_a_form_must_say_that_it_comes_from_here(
    pages: Pages, method: str, headers: dict[str, str], is_forged: bool
) -> None:
    """What says nothing is refused, too, as old browsers and programs do."""
    assert pages.is_forged(method, "us.example", headers) is is_forged
    assert pages.is_forged("POST", "", {"Origin": "null"})
    assert pages.forged().status == 403


def test_a_cookie_is_ours_or_none(pages: Pages, stranger: Visit) -> None:
    """One that was made up, or signed with another key, is a stranger's."""
    pages.sign_up(stranger, EMAIL, "Ada", PASSWORD)
    reply = pages.sign_in(stranger, EMAIL, PASSWORD, remember_me=False)
    assert (reply.status, reply.headers["Location"]) == (303, "/")
    for attribute in ("HttpOnly", "SameSite=Lax", "Secure", "Path=/"):
        assert attribute in reply.headers["Set-Cookie"]
    assert "Max-Age" not in reply.headers["Set-Cookie"]
    cookie = cookie_of(reply)
    assert pages.visit({"session": cookie}, None, is_https=True).account is not None
    token = cookie.partition(".")[0]
    for other in ("", token, f"{token}.{'x' * 43}", f"x{cookie}", "é.é"):
        assert pages.visit({"session": other}, None, is_https=True).account is None


def test_a_remembered_session_outlasts_the_browser(pages: Pages, stranger: Visit) -> None:
    """Signing in again ends the session before, and signing out takes the cookie away."""
    pages.sign_up(stranger, EMAIL, "Ada", PASSWORD)
    first = cookie_of(pages.sign_in(stranger, EMAIL, PASSWORD, remember_me=False))
    visit = pages.visit({"session": first}, None, is_https=False)
    reply = pages.sign_in(visit, EMAIL, PASSWORD, remember_me=True)
    assert "Max-Age=2592000" in reply.headers["Set-Cookie"]
    assert "Secure" not in reply.headers["Set-Cookie"]
    assert pages.visit({"session": first}, None, is_https=False).account is None
    visit = pages.visit({"session": cookie_of(reply)}, None, is_https=False)
    assert "Max-Age=0" in pages.sign_out(visit).headers["Set-Cookie"]
    assert pages.visit({"session": cookie_of(reply)}, None, is_https=False).account is None


def test_what_was_typed_is_shown_as_text(pages: Pages, stranger: Visit) -> None:
    """And a password is not shown at all."""
    script = "<script>alert(1)</script>"
    for reply in (
        pages.sign_up(stranger, script, script, PASSWORD),
        pages.sign_in(stranger, script, PASSWORD, remember_me=False),
        pages.sign_in_form(stranger, script),
    ):
        assert script not in reply.body
        assert PASSWORD not in reply.body
        assert "script-src 'self'" in reply.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("email", "name", "password", "field", "message"),
    [
        ("ada", "", "", "email", "Enter an e-mail"),
        ("grace@example.com", " ", "", "name", "Enter a name"),
        ("grace@example.com", "Grace", "short", "password", "12 to 128"),
        (EMAIL, "Eve", PASSWORD, "email", "already"),
    ],
)
def test_the_first_wrong_field_of_a_new_account_has_mark_message_and_focus(
    pages: Pages, stranger: Visit, email: str, name: str, password: str, field: str, message: str
) -> None:
    """And no other field has; what was typed is kept, but for the password."""
    pages.sign_up(stranger, EMAIL, "Ada", PASSWORD)
    reply = pages.sign_up(stranger, email, name, password)
    wrong, focused, text = at_fault(reply)
    assert (wrong, focused) == ([field], [field])
    assert message in text
    assert f'value="{email}"' in reply.body


def test_a_refused_sign_in_does_not_tell_which_of_the_two_is_wrong(
    pages: Pages, stranger: Visit
) -> None:
    """The password is to be typed again in either case; what is no e-mail is said so."""
    pages.sign_up(stranger, EMAIL, "Ada", PASSWORD)
    wrong_password = pages.sign_in(stranger, EMAIL, "a guess", remember_me=False)
    no_account = pages.sign_in(stranger, "eve@example.com", "a guess", remember_me=False)
    assert wrong_password.body.replace(EMAIL, "") == no_account.body.replace("eve@example.com", "")
    assert at_fault(no_account) == (["password"], ["password"], "E-mail or password is wrong.")
    assert at_fault(pages.sign_in(stranger, "ada", "x", remember_me=False))[0] == ["email"]


def test_a_refused_change_of_the_password_names_the_one_that_is_wrong(
    pages: Pages, stranger: Visit
) -> None:
    """The present one, or the next one."""
    pages.sign_up(stranger, EMAIL, "Ada", PASSWORD)
    cookie = cookie_of(pages.sign_in(stranger, EMAIL, PASSWORD, remember_me=False))
    visit = pages.visit({"session": cookie}, None, is_https=True)
    too_short = pages.change_password(visit, PASSWORD, "short")
    assert at_fault(too_short)[:2] == (["new"], ["new"])
    wrong, focused, message = at_fault(pages.change_password(visit, "a guess", "x" * 12))
    assert (wrong, focused, message) == (["current"], ["current"], "The current password is wrong.")


def test_who_is_locked_out_has_no_field_at_fault(
    pages: Pages, accounts: Accounts, dispatcher: EventDispatcher, stranger: Visit
) -> None:
    """The focus goes to the message, which then is what is read first."""
    dispatcher.emit(SuspiciousActivityEventContext(kind="brute_force", subject=EMAIL, count=5))
    assert dispatcher.drain(5)
    refused = pages.sign_in(stranger, EMAIL, PASSWORD, remember_me=False)
    wrong, focused, message = at_fault(refused)
    assert (refused.status, wrong, focused) == (429, [], ["error"])
    assert "15 minutes" in message


@pytest.mark.parametrize(
    ("status", "title"),
    [
        (400, "This is refused"),
        (404, "There is no such page"),
        (418, "This is refused"),
        (500, "Something went wrong"),
        (503, "Something went wrong"),
    ],
)
def test_each_problem_has_a_page(pages: Pages, stranger: Visit, status: int, title: str) -> None:
    """One that is not foreseen has that of its kind; without a visit, no links are offered."""
    reply = pages.problem(status, stranger)
    assert reply.status == status
    assert f"<h1>{title}</h1>" in reply.body
    assert 'href="/sign-in"' in reply.body
    assert 'href="/sign-in"' not in pages.problem(status).body


def test_events_are_for_administrators(pages: Pages, accounts: Accounts, stranger: Visit) -> None:
    """A stranger is asked to sign in, and anybody else is told why not."""
    assert pages.events(stranger).headers["Location"] == "/sign-in"
    assert pages.break_handler(stranger).headers["Location"] == "/sign-in"
    pages.sign_up(stranger, EMAIL, "Ada", PASSWORD)
    cookie = cookie_of(pages.sign_in(stranger, EMAIL, PASSWORD, remember_me=False))
    visit = pages.visit({"session": cookie}, None, is_https=True)
    assert pages.events(visit).status == 403
    assert pages.break_handler(visit).status == 403
    assert not pages.may_watch(visit)
    accounts.grant_admin(EMAIL)
    visit = pages.visit({"session": cookie}, None, is_https=True)
    assert pages.events(visit).status == 200
    assert pages.break_handler(visit).headers["Location"] == "/events"
    assert pages.may_watch(visit)
