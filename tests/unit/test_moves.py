"""Moving things between lists that several threads share."""

from __future__ import annotations

import pytest

from support.inside import moving


class Shared(list[int]):
    """A list from which another thread takes its first thing once this one has counted."""

    def __len__(self) -> int:
        return super().__len__() + 1


@pytest.mark.guarantee("B1")
def test_what_another_thread_moves_at_the_same_time_is_moved_by_it() -> None:
    target: list[int] = []
    assert moving.move_all(Shared([1, 2]), target) == 3
    assert target == [2, 1]
