"""What emissions and their causes have in common."""

from __future__ import annotations

from typing import Any

from madcrow_events import Emission


def is_caused_by(caused: Emission[Any], cause: Emission[Any], root: Emission[Any]) -> bool:
    """Tell whether the ids of three emissions say so."""
    return (
        caused.causation_id == cause.id
        and caused.correlation_id == root.id
        and caused.id > cause.id >= root.id
    )
