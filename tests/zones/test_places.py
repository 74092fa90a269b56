"""Zones by place: a box, a point; and many threads that ask at once."""

from concurrent.futures import ThreadPoolExecutor
from random import Random

import psycopg
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zones import places
from zones.geometry import LocalPlane
from zones.places import Places

lngs, lats = st.floats(105.7, 105.95), st.floats(20.95, 21.15)


@pytest.fixture
def city(database_url: str) -> Places:
    with psycopg.connect(database_url, autocommit=True) as connection:
        return places.load(connection)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(west=lngs, south=lats, width=st.floats(0, 0.1), height=st.floats(0, 0.1))
def test_box_has_the_zones_whose_shapes_touch_it(city: Places, west: float, south: float, width: float, height: float):
    box = shapely.box(west, south, west + width, south + height)
    touching = [place for place in city.all if place.geometry.intersects(box)]
    assert city.in_box(west, south, west + width, south + height) == touching


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 10_000), east=st.floats(-0.002, 0.002), metres=st.floats(0, 500))
def test_near_has_the_zones_within_reach_nearest_first(city: Places, number: int, east: float, metres: float):
    middle = city.all[number % len(city.all)].geometry.representative_point()
    lng, lat = middle.x + east, middle.y
    plane = LocalPlane(lng, lat)
    distances = {place.code: plane.to_metres(place.geometry).distance(shapely.Point(0, 0)) for place in city.all}
    found = city.near(lat, lng, metres)
    assert [place.code for place, _ in found] == sorted(
        (code for code, distance in distances.items() if distance <= metres), key=lambda code: (distances[code], code)
    )
    assert [distance for _, distance in found] == pytest.approx([distances[place.code] for place, _ in found])


def test_many_threads_ask_a_new_city_at_once(city: Places):
    boxes = [(105.7 + n * 0.01, 20.9, 105.9, 21.2) for n in range(10)]
    points = [place.geometry.representative_point() for place in city.all]
    alone = [city.positions_in_box(*box) for box in boxes]

    def ask(seed: int) -> bool:
        random, fresh = Random(seed), cities[seed // 16]
        for _ in range(40):
            number, point = random.randrange(len(boxes)), random.choice(points)
            if fresh.positions_in_box(*boxes[number]) != alone[number] or not fresh.near(point.y, point.x, 8):
                return False
        return True

    cities = [Places(number, city.all, city.districts) for number in range(8)]
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(16 * len(cities))))
