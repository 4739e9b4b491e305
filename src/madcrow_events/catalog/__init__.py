"""What is declared: the catalogue of events, as JSON Schema and as an AsyncAPI document."""

from madcrow_events.catalog._asyncapi import asyncapi
from madcrow_events.catalog._json_schema import json_schema

__all__ = ["asyncapi", "json_schema"]
