"""Emissions: how handlers are called, the outcome, the causes, and the fields of scopes."""

from madcrow_events.emissions._emission import Emission, EmissionState, HandlerResult, current_event
from madcrow_events.emissions._failures import HandlerFailure
from madcrow_events.emissions._scopes import ScopeFields, event_scope, request_fields

__all__ = [
    "Emission",
    "EmissionState",
    "HandlerFailure",
    "HandlerResult",
    "ScopeFields",
    "current_event",
    "event_scope",
    "request_fields",
]
