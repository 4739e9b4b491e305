"""What both example applications share: accounts, their pages, and a log of events to watch."""

from accounts.event_log import POLL_SECONDS, STREAM_SECONDS, EventLog, Follower
from accounts.events import SHOWN, AccountLocked, FailureRequested, PageViewed
from accounts.pages import STATIC, Pages, Reply, Visit
from accounts.service import Account, Accounts, Refused
from accounts.settings import Settings

__all__ = [
    "POLL_SECONDS",
    "SHOWN",
    "STATIC",
    "STREAM_SECONDS",
    "Account",
    "AccountLocked",
    "Accounts",
    "EventLog",
    "FailureRequested",
    "Follower",
    "PageViewed",
    "Pages",
    "Refused",
    "Reply",
    "Settings",
    "Visit",
]
