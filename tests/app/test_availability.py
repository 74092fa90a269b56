"""The map that all threads of a process share: nobody is answered an old one, and renewing it keeps nobody waiting."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest

from app.availability import MAP_AGE_SECONDS, RENEW_SECONDS, Map, View
from app.resources import Resources
from app.stack.processes import wait_until
from tests.conftest import DEAD, SteppedClock
from zones.nodes import connect

PATIENCE = 20.0
READERS = 8
ZONE = "HK-001"


@pytest.fixture
def city(resources: Resources) -> Iterator[Map]:
    """A map without Redis: a lock on the counts in PostgreSQL holds up whoever makes it."""
    lonely = replace(resources, redis=connect(DEAD["one"], 0.25))
    lonely.catalogue.refresh()
    yield Map(lonely)
    lonely.copies.close()
    lonely.redis.close()


@contextmanager
def making_held_up(database_url: str) -> Iterator[None]:
    with psycopg.connect(database_url) as rival:
        rival.execute("LOCK TABLE zone_occupancy IN ACCESS EXCLUSIVE MODE")
        yield


def is_making(database_url: str) -> bool:
    """Whether somebody reads the counts and waits for the lock on them."""
    query = """SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'zone_occupancy'::regclass
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
    with psycopg.connect(database_url) as connection:
        return connection.execute(query).fetchone()[0] > 0


def aged(view: View, seconds: float) -> View:
    """The same, as if it had been made so long ago."""
    return view._replace(made=time.monotonic() - seconds)


def park(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE zone_occupancy SET occupied = 7, version = version + 1 WHERE zone_code = %s", (ZONE,)
        )


def test_while_a_new_map_is_made_nobody_is_answered_an_old_one(city: Map, clock: SteppedClock, database_url: str):
    old = city._view = aged(city.view(), 5.0)
    park(database_url)
    clock.advance(seconds=5)
    with ThreadPoolExecutor(READERS) as pool:
        with making_held_up(database_url):
            asked: list[Future[View]] = [pool.submit(city.view) for _ in range(READERS)]
            assert wait_until(lambda: is_making(database_url), PATIENCE)
        views = [one.result(PATIENCE) for one in asked]
    for view in views:
        assert view.as_of != old.as_of
        assert b'"occupied":7' in view.features[ZONE].json


class SlowMap(Map):
    """One that takes longer to make than it may be used."""

    def _make(self) -> View:
        made = super()._make()
        threading.Event().wait(MAP_AGE_SECONDS + 0.1)
        return made


def test_who_waits_for_a_slow_map_takes_what_was_begun_after_he_asked(city: Map):
    """Were the new map thrown away for its own slow making, each would make another, one after the other."""
    slow = SlowMap(city._resources)
    with ThreadPoolExecutor(READERS) as pool:
        asked = [pool.submit(slow.view) for _ in range(READERS)]
        assert len({one.result(PATIENCE).made for one in asked}) == 1


def test_a_map_that_grows_old_is_renewed_by_one_and_the_others_do_not_wait(
    city: Map, clock: SteppedClock, database_url: str
):
    old = city._view = aged(city.view(), RENEW_SECONDS)
    clock.advance(seconds=1)
    with ThreadPoolExecutor(1) as pool, making_held_up(database_url):
        renewed = pool.submit(city.view)
        assert wait_until(lambda: is_making(database_url), PATIENCE)
        growing = city._view = aged(old, RENEW_SECONDS)
        assert city.view() is growing
    assert renewed.result(PATIENCE).as_of != old.as_of
