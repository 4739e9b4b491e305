"""What handlers of batches keep."""

from __future__ import annotations

import pytest

from support.batches import Kept


@pytest.fixture
def kept() -> Kept:
    return Kept()
