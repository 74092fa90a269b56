"""The copies in Redis: the same promises on one Redis and on a Redis Cluster."""

import itertools
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zones.nodes import Nodes, connect
from zones.occupancy import Copies, CopiesAway
from zones.sessions import Count

ZONES = [f"HK-{number:03}" for number in range(1, 151)]
KEYS = list(itertools.product(ZONES, ("car", "motorbike")))
NOON = datetime(2026, 10, 14, 5, tzinfo=UTC)
_ids = itertools.count()


def count(key: tuple[str, str], version: int, occupied: int = 5) -> Count:
    return Count(*key, version, occupied, 16, NOON)


@pytest.fixture(params=["one", "cluster"])
def redis(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    url = (
        request.getfixturevalue("redis_url") if request.param == "one" else request.getfixturevalue("redis_cluster").url
    )
    redis = connect(url, 0.25)
    yield redis
    redis.close()


@pytest.fixture
def database_id() -> str:
    return f"test-{next(_ids)}"


@pytest.fixture
def copies(redis: Nodes, database_id: str) -> Iterator[Copies]:
    copies = Copies(redis, database_id)
    yield copies
    copies.close()


@pytest.fixture
def others(redis: Nodes, database_id: str) -> Copies:
    """What another process sees: nothing but what is in Redis."""
    return Copies(redis, database_id)


def test_all_counts_of_a_city_come_back_in_one_look(copies: Copies, others: Copies) -> None:
    pushed = {key: count(key, 1, number % 16) for number, key in enumerate(KEYS)}
    copies.push(pushed.values())
    assert copies.flush()
    assert others.read(KEYS) == pushed


def test_own_counts_are_seen_at_once(copies: Copies) -> None:
    copies.push([count(KEYS[0], 1)])
    assert copies.read(KEYS[:2]) == {KEYS[0]: count(KEYS[0], 1)}


def test_what_nobody_pushed_is_left_out(copies: Copies) -> None:
    copies.overwrite([count(KEYS[0], 3)])
    assert copies.read([]) == {}
    assert copies.read(KEYS[:4]) == {KEYS[0]: count(KEYS[0], 3)}


def test_late_and_repeated_pushes_lose(copies: Copies, others: Copies) -> None:
    for version, occupied in ((7, 7), (6, 1), (7, 2)):
        copies.push([count(KEYS[0], version, occupied)])
        copies.flush()
    assert others.read(KEYS[:1]) == {KEYS[0]: count(KEYS[0], 7, 7)}


def test_overwriting_takes_older_versions_too(copies: Copies, others: Copies) -> None:
    copies.overwrite([count(key, 9) for key in KEYS])
    copies.overwrite([count(key, 2) for key in KEYS])
    copies.overwrite([])
    assert others.read(KEYS) == {key: count(key, 2) for key in KEYS}


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(KEYS[:6]), st.integers(1, 30)), min_size=1, max_size=40), st.randoms())
def test_in_whatever_order_counts_come_the_newest_stay(
    redis: Nodes, pushed: list[tuple[tuple[str, str], int]], order: random.Random
) -> None:
    database_id = f"order-{next(_ids)}"
    writers = [Copies(redis, database_id) for _ in range(3)]
    order.shuffle(pushed)
    for key, version in pushed:
        order.choice(writers).push([count(key, version, version % 16)])
    for writer in writers:
        writer.close()
    newest = {key: max(version for other, version in pushed if other == key) for key, _ in pushed}
    expected = {key: count(key, version, version % 16) for key, version in newest.items()}
    assert Copies(redis, database_id).read(KEYS[:6]) == expected


def test_ping_of_a_living_one_is_silent(copies: Copies) -> None:
    copies.ping()


def test_its_processes_can_be_measured(redis: Nodes) -> None:
    names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in redis.process_ids()}
    assert names == {"redis-server"}


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "redis+cluster://127.0.0.1:1,127.0.0.1:2"])
def test_dead_one_says_so_at_once_and_is_then_left_alone(url: str, database_id: str) -> None:
    redis = connect(url, 0.25)
    copies = Copies(redis, database_id)
    copies.push([count(KEYS[0], 1)])
    assert copies.flush()
    for call in (copies.ping, lambda: copies.read(KEYS), lambda: copies.overwrite([count(KEYS[0], 1)])):
        before = time.monotonic()
        with pytest.raises(CopiesAway):
            call()
        assert time.monotonic() - before < 1.0
    copies.close()
    redis.close()
