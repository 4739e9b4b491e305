"""An option of the ways to subscribe stands in each place where users look for it."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from madcrow_events import Subscription
from madcrow_events.subscriptions import SubscriptionOptions

ROOT = Path(__file__).parents[2]


def text_of(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def section_of(path: str, heading: str) -> str:
    """Return the section of a page whose heading begins with `heading`."""
    return text_of(path).partition(f"\n## {heading}")[2].partition("\n## ")[0]


@pytest.mark.parametrize("option", sorted(SubscriptionOptions.__annotations__))
def test_an_option_stands_in_each_place_where_users_look_for_it(option: str) -> None:
    options = section_of("docs/reference/handler-forms.md", "Options")
    promise = section_of("docs/reference/guarantees/subscriptions.md", "H5 ")
    places = {
        "an attribute of Subscription": hasattr(Subscription, option),
        # Since 3.13 a docstring loses its indentation.
        "the docstring of SubscriptionOptions": f"\n    {option}: "
        in inspect.cleandoc(SubscriptionOptions.__doc__ or ""),
        "the table in docs/reference/handler-forms.md": f"\n| `{option}` |" in options,
        "H5 of docs/reference/guarantees/subscriptions.md": f"`{option}`" in promise,
        "tests/typing/check_subscribing.py": f" {option}="
        in text_of("tests/typing/check_subscribing.py"),
    }
    lacking = [place for place, has_it in places.items() if not has_it]
    assert not lacking, f"{option} is missing in: {', '.join(lacking)}"
