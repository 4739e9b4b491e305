"""Accounts on FastAPI, with a page of events as they happen; `events.py` is the file to copy."""

from fastapi_app.app import create_app

__all__ = ["create_app"]
