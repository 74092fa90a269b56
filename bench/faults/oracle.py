"""What must be true after a fault, found out by SQL of its own: no start lost, none there twice, no count wrong."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import orjson
import psycopg
from redis import Redis, RedisCluster
from redis.cluster import ClusterNode
from redis.exceptions import RedisError

from simulator.answers import Answer, AnswersReader

_SESSIONS = """
SELECT id::text, client, idempotency_key FROM active_session
UNION ALL SELECT id::text, client, idempotency_key FROM parking_session"""
_COUNTS = """
SELECT o.zone_code, o.vehicle_class, o.occupied, o.version, count(a.id) FILTER (WHERE a.counted)
  FROM zone_occupancy o
  LEFT JOIN active_session a ON a.zone_code = o.zone_code AND a.vehicle_class = o.vehicle_class
 GROUP BY o.zone_code, o.vehicle_class, o.occupied, o.version"""
_DATABASE = """
SELECT to_hex(s.system_identifier) || '-' || d.oid || '-' || c.timeline_id
  FROM pg_control_system() s, pg_control_checkpoint() c, pg_database d WHERE d.datname = current_database()"""


class Starts(NamedTuple):
    """What became of the starts of a run: answered with 201, lost (answered, not there), doubled, sent more than
    once."""

    answered: int
    lost: int
    doubled: int
    retried: int


def examine(database_url: str, answers: Iterable[Answer]) -> Starts:
    """Hold every start of a run against the rows that are there."""
    starts = [answer for answer in answers if answer.action == "start"]
    with psycopg.connect(database_url, autocommit=True) as connection:
        rows = connection.execute(_SESSIONS).fetchall()
    ids, keys = Counter(row[0] for row in rows), Counter(row[1:] for row in rows if row[2] is not None)
    answered = [str(orjson.loads(answer.body)["id"]) for answer in starts if answer.status == 201]
    doubled = sum(number - 1 for counted in (ids, keys) for number in counted.values() if number > 1)
    return Starts(
        answered=len(answered),
        lost=sum(1 for session in answered if not ids[session]),
        doubled=doubled + len(answered) - len(set(answered)),
        retried=sum(1 for answer in starts if answer.tries > 1),
    )


def read(record: Path) -> list[Answer]:
    """All answers of a run."""
    with AnswersReader(record) as reader:
        return list(reader)


def copies_that_differ(database_url: str, redis_url: str) -> list[str]:
    """Counts that are not the number of their sessions, and copies in Redis that are missing or not their row's."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        prefix = connection.execute(_DATABASE).fetchone()[0]  # type: ignore[index]
        rows = connection.execute(_COUNTS).fetchall()
    try:
        copies = _read(redis_url, [f"{prefix}:{{{zone}}}:count:{kind}" for zone, kind, *_ in rows])
    except RedisError as error:
        return [f"Redis does not answer: {error}"]
    wrong = []
    for (zone, kind, occupied, version, sessions), copy in zip(rows, copies, strict=True):
        if occupied != sessions:
            wrong.append(f"{zone} {kind}: counted {occupied}, sessions {sessions}")
        if copy is None or copy.split()[:2] != [str(version).encode(), str(occupied).encode()]:
            wrong.append(f"{zone} {kind}: row {occupied} (version {version}), copy {copy!r}")
    return wrong


def _read(url: str, keys: list[str]) -> list[bytes | None]:
    """What these keys hold in a Redis or, by a redis+cluster:// URL, in a Redis Cluster: by redis-py's own clients."""
    if not url.startswith("redis+cluster://"):
        with Redis.from_url(url, retry=None) as redis:
            return redis.mget(keys)
    user, _, hosts = urlsplit(url).netloc.rpartition("@")
    seeds = [ClusterNode(host, int(port)) for host, port in (seed.split(":") for seed in hosts.split(","))]
    with RedisCluster(startup_nodes=seeds, password=user.removeprefix(":") or None) as cluster:
        return cluster.mget_nonatomic(keys)
