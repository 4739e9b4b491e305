"""The pages, whatever framework serves them: each method answers one request."""

import hashlib
from collections.abc import Mapping
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from itsdangerous import BadSignature, Signer
from jinja2 import Environment, PackageLoader, StrictUndefined

from accounts.service import Account, Accounts, Refused

STATIC = Path(__file__).with_name("static")
"""The folder of what the pages load from `/static`."""

COOKIE = "session"
NOTICES = {
    "signed-up": "Your account is there. Sign in with it.",
    "signed-out": "You have signed out.",
    "changed": "Your password is changed, and all your sessions have ended. Sign in again.",
}
FAILED = 500  # and above
PROBLEMS: dict[int, tuple[str, ...]] = {
    400: ("This is refused", "The application did not understand what was sent."),
    403: (
        "For administrators",
        "Only they see the events. Whoever runs the application can make you one of them:",
        "python -m accounts grant-admin EMAIL",
    ),
    404: ("There is no such page", "Check the address, or go to the start page."),
    405: ("That cannot be done here", "Go to the start page, and use its links and forms."),
    413: ("This form is too large", "Enter less, and send it again."),
    FAILED: (
        "Something went wrong",
        "The fault is ours, and whoever runs the application can read about it. Try again later.",
    ),
}
"""Title, text and perhaps a command, by status; 400 and 500 stand for those that are missing."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    # Not `no-referrer`, with which browsers send forms without saying where they come from.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class Headers(Protocol):
    """The headers of a request, as each framework has them."""

    def get(self, name: str, /) -> str | None:
        """Return the value of a header, in whatever case its name is given; None without one."""
        ...


class Visit(NamedTuple):
    """Who asks.

    Attributes:
        token: of the session; None without one.
        account: who has signed in; None for a stranger.
        address: where the visitor comes from.
        is_https: whether nobody on the way can read along.
    """

    token: str | None
    account: Account | None
    address: str | None
    is_https: bool


class Reply(NamedTuple):
    """What is answered: a page, or where to go."""

    status: int
    body: str
    headers: dict[str, str]


class Pages:
    """Answers what a person asks for.

    Args:
        accounts: the accounts.
        secret_key: signs the cookies.
    """

    def __init__(self, accounts: Accounts, secret_key: str) -> None:
        self._accounts = accounts
        self._signer = Signer(secret_key, salt="session", digest_method=hashlib.sha256)
        self._templates = Environment(
            loader=PackageLoader("accounts"), autoescape=True, undefined=StrictUndefined
        )

    def visit(self, cookies: Mapping[str, str], address: str | None, *, is_https: bool) -> Visit:
        """Return who asks.

        Args:
            cookies: of the request.
            address: where it comes from.
            is_https: whether it is encrypted.
        """
        try:
            token = self._signer.unsign(cookies.get(COOKIE, "")).decode()
        except (BadSignature, UnicodeError):
            token = None
        return Visit(token, self._accounts.account_of(token), address, is_https)

    def is_forged(self, method: str, host: str, headers: Headers) -> bool:
        """Tell whether a form may come from another site than ours.

        Browsers say where a form comes from; what does not say so is refused, too.

        Args:
            method: of the request.
            host: what it is addressed to, with the port if it has one.
            headers: its headers.
        """
        if method in SAFE_METHODS:
            return False
        site = headers.get("Sec-Fetch-Site")
        if site is not None:
            return site not in ("same-origin", "none")
        try:
            return not host or urlsplit(headers.get("Origin") or "").netloc != host
        except ValueError:
            return True

    def forged(self) -> Reply:
        """Refuse a form that comes from another site."""
        text = "It did not come from a page of this site. Open the page here, and try again."
        return self._message(None, 403, "This form is refused", text)

    def problem(self, status: int, visit: Visit | None = None) -> Reply:
        """Tell that a request has failed, without a word about its cause.

        Args:
            status: of HTTP.
            visit: the visitor; without one, the page has no links, and no database is read.
        """
        said = PROBLEMS.get(status) or PROBLEMS[400 if status < FAILED else FAILED]
        return self._message(visit, status, *said)

    def home(self, visit: Visit) -> Reply:
        """Show the first page."""
        return self._page(visit, "home.html")

    def sign_up_form(self, visit: Visit) -> Reply:
        """Show the form for a new account."""
        return self._page(visit, "sign_up.html", email="", name="")

    def sign_up(self, visit: Visit, email: str, name: str, password: str) -> Reply:
        """Make an account."""
        try:
            self._accounts.sign_up(email, name, password)
        except Refused as refusal:
            return self._refused(visit, "sign_up.html", refusal, email=email, name=name)
        return self._go_to("/sign-in?notice=signed-up")

    def sign_in_form(self, visit: Visit, notice: str = "") -> Reply:
        """Show the form for a session.

        Args:
            visit: who asks.
            notice: which of `NOTICES` to show, if one.
        """
        return self._page(visit, "sign_in.html", email="", notice=NOTICES.get(notice))

    def sign_in(self, visit: Visit, email: str, password: str, *, remember_me: bool) -> Reply:
        """Begin a session."""
        try:
            session = self._accounts.sign_in(
                email, password, address=visit.address, remember_me=remember_me
            )
        except Refused as refusal:
            return self._refused(visit, "sign_in.html", refusal, email=email)
        # The session that the browser had, if it had one, is not left behind.
        self._accounts.sign_out(visit.token)
        return self._go_to("/", self._cookie(visit, session.token, session.seconds))

    def sign_out(self, visit: Visit) -> Reply:
        """End the session."""
        self._accounts.sign_out(visit.token)
        return self._go_to("/sign-in?notice=signed-out", self._cookie(visit, "", 0))

    def password_form(self, visit: Visit) -> Reply:
        """Show the form for another password."""
        if visit.account is None:
            return self._go_to("/sign-in")
        return self._page(visit, "password.html")

    def change_password(self, visit: Visit, current: str, new: str) -> Reply:
        """Set another password, and end all sessions of the account."""
        if visit.account is None:
            return self._go_to("/sign-in")
        try:
            self._accounts.change_password(visit.account, current, new, address=visit.address)
        except Refused as refusal:
            return self._refused(visit, "password.html", refusal)
        return self._go_to("/sign-in?notice=changed", self._cookie(visit, "", 0))

    def events(self, visit: Visit) -> Reply:
        """Show the events as they happen, to administrators."""
        if visit.account is None:
            return self._go_to("/sign-in")
        if not self.may_watch(visit):
            return self.problem(403, visit)
        return self._page(visit, "events.html")

    def break_handler(self, visit: Visit) -> Reply:
        """Emit an event whose handler fails, to show an administrator that the request succeeds."""
        if self.may_watch(visit):
            self._accounts.demonstrate_failure()
            return self._go_to("/events")
        return self.events(visit)  # which says why not

    def may_watch(self, visit: Visit) -> bool:
        """Tell whether somebody may see the events."""
        return visit.account is not None and visit.account.is_admin

    def _refused(self, visit: Visit, template: str, refusal: Refused, **typed: str) -> Reply:
        return self._page(visit, template, refusal.status, error=refusal, **typed)

    def _message(
        self, visit: Visit | None, status: int, title: str, text: str, command: str = ""
    ) -> Reply:
        said = {"title": title, "text": text, "command": command}
        return self._page(visit, "message.html", status, **said)

    def _page(self, visit: Visit | None, template: str, status: int = 200, **values: Any) -> Reply:
        account = None if visit is None else visit.account
        shown = {"visit": visit, "account": account, "notice": None, "error": None, **values}
        return Reply(status, self._templates.get_template(template).render(shown), HEADERS.copy())

    def _go_to(self, path: str, cookie: str | None = None) -> Reply:
        headers = {**HEADERS, "Location": path}
        if cookie is not None:
            headers["Set-Cookie"] = cookie
        return Reply(303, "", headers)

    def _cookie(self, visit: Visit, token: str, seconds: int | None) -> str:
        cookies = SimpleCookie()
        cookies[COOKIE] = self._signer.sign(token).decode() if token else ""
        morsel = cookies[COOKIE]
        morsel["path"] = "/"
        morsel["httponly"] = True
        morsel["samesite"] = "Lax"
        if visit.is_https:
            morsel["secure"] = True
        if seconds is not None:
            morsel["max-age"] = seconds
        return morsel.OutputString()
