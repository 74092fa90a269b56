"""The copies in Redis: the same promises on one Redis and on a Redis Cluster."""

import itertools
import random
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.stack.processes import wait_until
from tests.redis_cluster import PATIENCE
from zones import occupancy
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
    redis = connect(url, PATIENCE)
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


class Slow:
    """One Redis whose commands wait on their way until they may go on, or are told to fail."""

    def __init__(self, redis: Nodes) -> None:
        self._redis = redis
        self.mget = redis.mget
        self.under_way, self.may_go_on = threading.Event(), threading.Event()
        self.failure: Exception | None = None

    def run(self, script: str, calls: list) -> None:
        self.under_way.set()
        assert self.may_go_on.wait(20)
        if self.failure is not None:
            raise self.failure
        self._redis.run(script, calls)


class TestSending:
    @pytest.fixture
    def slow(self, redis: Nodes) -> Slow:
        return Slow(redis)

    @pytest.fixture
    def copies(self, slow: Slow, database_id: str) -> Iterator[Copies]:
        copies = Copies(slow, database_id)  # type: ignore[arg-type]
        yield copies
        slow.may_go_on.set()
        copies.close()

    def test_a_late_older_count_hides_no_newer_one_on_its_way(self, slow: Slow, copies: Copies) -> None:
        copies.push([count(KEYS[0], 9)])
        assert slow.under_way.wait(20)
        copies.push([count(KEYS[0], 8)])
        assert copies.read(KEYS[:1]) == {KEYS[0]: count(KEYS[0], 9)}

    def test_what_comes_while_a_flush_is_under_way_is_sent_after_it(
        self, slow: Slow, copies: Copies, others: Copies
    ) -> None:
        copies.push([count(KEYS[0], 1)])
        assert slow.under_way.wait(20)
        copies.push([count(KEYS[1], 1)])
        copies.push([count(KEYS[0], 2)])
        slow.may_go_on.set()
        assert copies.flush()
        assert others.read(KEYS[:2]) == {KEYS[0]: count(KEYS[0], 2), KEYS[1]: count(KEYS[1], 1)}

    def test_a_failure_of_any_kind_ends_neither_the_thread_nor_the_next_count(
        self, slow: Slow, copies: Copies, others: Copies
    ) -> None:
        slow.failure = RuntimeError("a fault in the driver")
        slow.may_go_on.set()
        copies.push([count(KEYS[0], 1)])
        assert copies.flush()
        assert copies.read(KEYS[:1]) == {}, "what was lost is not taken for what is held"
        slow.failure = None
        copies.push([count(KEYS[0], 2)])
        assert copies.flush()
        assert others.read(KEYS[:1]) == {KEYS[0]: count(KEYS[0], 2)}

    def test_closing_sends_what_is_left_and_a_late_push_still_arrives(
        self, slow: Slow, copies: Copies, others: Copies
    ) -> None:
        slow.may_go_on.set()
        copies.push([count(KEYS[0], 1)])
        copies.close()
        assert others.read(KEYS[:2]) == {KEYS[0]: count(KEYS[0], 1)}
        copies.push([count(KEYS[1], 1)])
        assert copies.flush()
        assert others.read(KEYS[:2]) == {key: count(key, 1) for key in KEYS[:2]}

    def test_an_idle_thread_ends_and_the_next_push_starts_another(
        self, slow: Slow, copies: Copies, others: Copies, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(occupancy, "IDLE_SECONDS", 0.01)
        slow.may_go_on.set()
        for version in (1, 2, 3):
            copies.push([count(KEYS[0], version)])
            assert copies.flush()
            assert wait_until(lambda: copies._thread is None, 20)
        assert others.read(KEYS[:1]) == {KEYS[0]: count(KEYS[0], 3)}

    def test_many_threads_push_and_read_and_none_sees_its_own_count_go_back(
        self, slow: Slow, copies: Copies, others: Copies
    ) -> None:
        slow.may_go_on.set()
        failures: list[str] = []
        versions = itertools.count(1)

        def work() -> None:
            for _ in range(100):
                own = next(versions)
                copies.push([count(KEYS[0], own)])
                seen = copies.read(KEYS[:1])[KEYS[0]].version
                if seen < own:
                    failures.append(f"pushed {own}, read {seen}")

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert copies.flush()
        assert others.read(KEYS[:1])[KEYS[0]].version == 800
