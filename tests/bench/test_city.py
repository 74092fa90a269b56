"""Map boxes hold exactly the number of zones that a map read is measured with."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import box, shape

from bench import city
from bench.errors import BenchError


def square(place: tuple[int, int], number: int) -> dict[str, Any]:
    """A small zone; no two have a side in line."""
    west, south = 105.7 + place[0] / 5000 + number / 1e6, 20.9 + place[1] / 5000 + number / 1e6
    corners = [(west, south), (west + 2e-7, south), (west + 2e-7, south + 2e-7), (west, south + 2e-7), (west, south)]
    return {"geometry": {"type": "Polygon", "coordinates": [[list(corner) for corner in corners]]}}


places = st.tuples(st.integers(0, 500), st.integers(0, 500))


@given(st.lists(places, min_size=6, max_size=40, unique=True), st.integers(1, 5), st.integers(0, 999_999))
def test_each_box_meets_exactly_as_many_zones_as_asked(zones: list[tuple[int, int]], number: int, digits: int) -> None:
    features = [square(place, n) for n, place in enumerate(zones)]
    for text in city.boxes(features, number):
        bounds = box(*map(float, (text % digits).split(",")))
        assert sum(shape(feature["geometry"]).intersects(bounds) for feature in features) == number


def test_a_city_with_too_few_zones_is_refused() -> None:
    with pytest.raises(BenchError, match="3 zones"):
        city.boxes([square((n, n), n) for n in range(3)], 50)
