"""Mend what the pages of the theme lack for those who listen to them."""

from __future__ import annotations

from typing import Any


def on_post_page(output: str, **_: Any) -> str:
    """Give the search dialog a name; mkdocs calls this for each page."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')
