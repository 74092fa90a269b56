"""The service's own check may run while sessions start and stop: what is only on its way is no divergence."""

import pytest

from zones.consistency import _was_true
from zones.sessions import Count


def count(version: int, occupied: int) -> Count:
    return Count("HK-001", "car", version, occupied, 16, None)


@pytest.mark.parametrize(
    ("copy", "is_true"),
    [
        (count(4, 2), False),  # older than its row
        (count(5, 2), True),
        (count(5, 9), False),  # the row's version, another value
        (count(6, 3), True),  # what the row was between the two looks
        (count(7, 4), True),
        (count(7, 9), False),
        (count(8, 5), False),  # of another history
    ],
)
def test_copy_diverges_unless_its_row_was_so_between_two_looks(copy: Count, is_true: bool) -> None:
    assert _was_true(copy, before=count(5, 2), after=count(7, 4)) == is_true
