"""Accounts on Flask, with a page of events as they happen."""

from flask_app.app import create_app

__all__ = ["create_app"]
