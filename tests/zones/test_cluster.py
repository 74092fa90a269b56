"""A Redis Cluster that loses, moves and regains nodes: what can be had is had, and nothing waits for the rest."""

import contextlib
import itertools
import time
from collections.abc import Iterator

import pytest
from redis.crc import key_slot
from redis.exceptions import RedisError

from app.stack.processes import wait_until
from tests.redis_cluster import MASTERS, PATIENCE, RedisCluster
from tests.zones.test_copies import KEYS, count
from zones.cluster import Cluster, split_url
from zones.nodes import connect
from zones.occupancy import Copies, CopiesAway

TIMEOUT = 1.0
# A read that waits for a dead node once a zone, not once, takes longer than this.
SOON = 12 * TIMEOUT
_ids = itertools.count()


@pytest.fixture
def cluster(redis_cluster: RedisCluster) -> Iterator[RedisCluster]:
    """The cluster, whole before and after the test."""
    yield redis_cluster
    for node in redis_cluster.nodes:
        node.thaw()
        if not node.answers():
            node.start()
        node.client.config_set("cluster-replica-no-failover", "no")
    redis_cluster.wait_until_whole()


@pytest.fixture
def redis(cluster: RedisCluster) -> Iterator[Cluster]:
    redis = connect(cluster.url, TIMEOUT)
    assert isinstance(redis, Cluster)
    assert wait_until(lambda: is_whole(redis), PATIENCE)
    yield redis
    redis.close()


@pytest.fixture
def copies(redis: Cluster) -> Iterator[Copies]:
    """Copies of all counts, each of version 1."""
    copies = Copies(redis, f"cluster-{next(_ids)}")
    copies.overwrite([count(key, 1) for key in KEYS])
    yield copies
    copies.close()


def is_whole(redis: Cluster) -> bool:
    try:
        redis.ping()
    except RedisError:
        return False
    return True


def shard_of(cluster: RedisCluster, key: tuple[str, str]) -> int:
    return cluster.shard(f"{{{key[0]}}}")


def keys_of(cluster: RedisCluster, shard: int) -> set[tuple[str, str]]:
    return {key for key in KEYS if shard_of(cluster, key) == shard}


@pytest.fixture
def packets(redis: Cluster, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many packets were sent at once, each time that some were."""
    sent: list[int] = []
    make = redis._packets

    def counted(*arguments: object) -> list:
        made = make(*arguments)  # type: ignore[arg-type]
        sent.append(len(made))
        return made

    monkeypatch.setattr(redis, "_packets", counted)
    return sent


class TestUrl:
    def test_seeds_share_user_and_options(self) -> None:
        seeds, options = split_url("rediss+cluster://me:p%40ss@h1:7001,h2,[::1]:7003/0?socket_keepalive=yes")
        assert seeds == [("h1", 7001), ("h2", 6379), ("::1", 7003)]
        assert (options["username"], options["password"], options["socket_keepalive"]) == ("me", "p@ss", True)
        assert options["connection_class"].__name__ == "SSLConnection"

    @pytest.mark.parametrize("rest", ["", "h1:7001,", "h1:port", "h1:70000", "h1/1", "h1:1/x"])
    def test_a_wrong_one_is_refused_without_telling_the_password(self, rest: str) -> None:
        with pytest.raises(ValueError) as refusal:
            connect(f"redis+cluster://:secret@{rest}", TIMEOUT)
        assert "secret" not in str(refusal.value)


class TestRoundTrips:
    def test_all_counts_are_one_packet_a_master(self, copies: Copies, packets: list[int]) -> None:
        packets.clear()
        assert len(copies.read(KEYS)) == len(KEYS)
        copies.push([count(key, 2) for key in KEYS])
        assert copies.flush()
        assert packets == [MASTERS, MASTERS]


class TestLostMaster:
    @pytest.fixture(autouse=True)
    def long_rest(self, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
        """A node that failed rests for as long as a test of that lasts, however busy the machine is."""
        if "packets" in request.fixturenames:
            monkeypatch.setattr("zones.cluster.NODE_REST_SECONDS", 60.0)

    def test_frozen_one_costs_one_time_out_and_only_its_own_keys(
        self, cluster: RedisCluster, copies: Copies, packets: list[int]
    ) -> None:
        lost = keys_of(cluster, 1)
        freeze_for_good(cluster, 1)
        packets.clear()
        before = time.monotonic()
        assert set(copies.read(KEYS)) == set(KEYS) - lost
        assert time.monotonic() - before < SOON
        assert copies.read(sorted(lost)[:2]) == {}
        assert set(copies.read(KEYS)) == set(KEYS) - lost, "the others are not left alone with it"
        assert packets == [MASTERS, 0, MASTERS - 1]

    def test_frozen_one_holds_up_no_push_to_the_others(
        self, cluster: RedisCluster, copies: Copies, packets: list[int]
    ) -> None:
        lost = keys_of(cluster, 2)
        freeze_for_good(cluster, 2)
        packets.clear()
        copies.push([count(key, 2) for key in KEYS])
        assert copies.flush(SOON)
        assert copies.read(KEYS) == {key: count(key, 2) for key in set(KEYS) - lost}
        assert packets == [MASTERS, MASTERS - 1]

    def test_what_is_not_written_everywhere_is_not_said_to_be(self, cluster: RedisCluster, copies: Copies) -> None:
        cluster.master(0).kill()
        with pytest.raises(CopiesAway):
            copies.overwrite([count(key, 2) for key in KEYS])
        with pytest.raises(CopiesAway):
            copies.ping()

    def test_its_replica_is_read_and_written_once_it_serves(self, cluster: RedisCluster, copies: Copies) -> None:
        heir = cluster.replica(1)
        cluster.master(1).kill()
        cluster.wait_for_master(heir)
        assert wait_until(lambda: set(copies.read(KEYS)) == set(KEYS), PATIENCE)
        copies.push([count(key, 2) for key in KEYS])
        assert copies.flush()
        assert copies.read(KEYS) == {key: count(key, 2) for key in KEYS}

    def test_all_lost_and_back_are_found_again(self, cluster: RedisCluster, copies: Copies) -> None:
        for node in cluster.nodes:
            node.kill()
        with contextlib.suppress(CopiesAway):  # raised as soon as it is known that all are dead
            assert copies.read(KEYS) == {}
        for node in cluster.nodes:
            node.start()
        cluster.wait_until_whole()
        assert wait_until(lambda: can_write(copies), PATIENCE)
        assert copies.read(KEYS) == {key: count(key, 3) for key in KEYS}

    def test_one_seed_that_lives_is_enough(self, cluster: RedisCluster) -> None:
        dead = f"redis+cluster://:{cluster.password}@127.0.0.1:1,127.0.0.1:{cluster.nodes[4].port}"
        redis = connect(dead, PATIENCE)
        Copies(redis, "seeds").ping()
        redis.close()

    def test_a_client_that_comes_while_a_master_is_dead_uses_the_others(self, cluster: RedisCluster) -> None:
        cluster.master(0).freeze()
        redis = connect(cluster.url, TIMEOUT)
        late = Copies(redis, f"late-{next(_ids)}")
        living = [key for key in KEYS if shard_of(cluster, key) != 0]
        assert wait_until(lambda: can_write(late, living), PATIENCE)
        late.close()
        redis.close()


def freeze_for_good(cluster: RedisCluster, shard: int) -> None:
    """Nobody takes the master's place."""
    cluster.replica(shard).client.config_set("cluster-replica-no-failover", "yes")
    cluster.master(shard).freeze()


def can_write(copies: Copies, keys: list[tuple[str, str]] = KEYS) -> bool:
    try:
        copies.overwrite([count(key, 3) for key in keys])
    except CopiesAway:
        return False
    return True


class TestMovedSlots:
    @pytest.fixture
    def moved(self, cluster: RedisCluster) -> Iterator[tuple[int, int]]:
        """The first zone's slot, between two shards: (slot, shard that has it)."""
        slot, shard = key_slot(KEYS[0][0].encode()), shard_of(cluster, KEYS[0])
        yield slot, shard
        for number in range(MASTERS):  # whoever has it, it goes home, and empty
            cluster.master(number).client.flushall()
        home = cluster.master(shard)
        for number in (shard, *(number for number in range(MASTERS) if number != shard)):
            cluster.master(number).ask("SETSLOT", slot, "NODE", home.ask("MYID"))

    def test_slot_that_moved_is_followed(
        self, cluster: RedisCluster, redis: Cluster, copies: Copies, moved: tuple[int, int]
    ) -> None:
        slot, shard = moved
        target = cluster.master((shard + 1) % MASTERS)
        for node in (target, cluster.master(shard)):
            node.client.flushall()
            node.ask("SETSLOT", slot, "NODE", target.ask("MYID"))
        copies.push([count(key, 2) for key in KEYS])
        assert copies.flush()
        assert copies.read(KEYS) == {key: count(key, 2) for key in KEYS}
        assert target.client.exists(copies.key(*KEYS[0]))

    def test_slot_that_is_moving_is_asked_for(
        self, cluster: RedisCluster, redis: Cluster, copies: Copies, moved: tuple[int, int]
    ) -> None:
        slot, shard = moved
        source, target = cluster.master(shard), cluster.master((shard + 1) % MASTERS)
        target.ask("SETSLOT", slot, "IMPORTING", source.ask("MYID"))
        source.ask("SETSLOT", slot, "MIGRATING", target.ask("MYID"))
        source.client.delete(*(copies.key(*key) for key in KEYS[:2]))  # as if they had gone over already
        copies.push([count(KEYS[0], 5)])
        assert copies.flush()
        assert copies.read(KEYS[:1]) == {KEYS[0]: count(KEYS[0], 5)}, "the new place has it"
        assert copies.read(KEYS[:2]) == {}, "half of a zone moved: PostgreSQL knows"
        assert set(copies.read(KEYS)) == set(KEYS) - set(KEYS[:2])
