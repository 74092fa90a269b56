"""Real PostgreSQL and Redis for every test: one database a worker, copied from a template with the shipped city.

`./iparking test` starts the private servers and sets IPARKING_TEST_DATABASE_URL (a maintenance database of a superuser)
and IPARKING_TEST_REDIS_URL.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from zoneinfo import ZoneInfo

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import settings
from psycopg import sql
from redis import Redis
from sqlalchemy import Connection, Engine, NullPool, create_engine
from sqlalchemy.engine import make_url
from werkzeug.datastructures import Headers

from app import create_app
from app.city import load_default_city
from app.config import Settings
from app.database import sqlalchemy_url, upgrade
from app.resources import Resources, make_resources
from app.stack.pooler import PULSE
from billing import ledger
from tests.fake_stripe.fixture import stripe_server  # noqa: F401 (a fixture for all)
from tests.redis_cluster import RedisCluster, running_cluster
from zones.nodes import connect

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = {"empty": "iparking_test_empty", "city": "iparking_test_city"}
HANOI = ZoneInfo("Asia/Ho_Chi_Minh")
TEMPLATE_LOCK = 7_264_002
LEDGER = "city_share_day, ledger_entry, ledger_transaction, ledger_account, wallet, hold"
RECEIPTS = "receipt, einvoice, number_series, receipt_progress"
GATEWAYS = "webhook_event, gateway_call, gateway_refund, card, credit, reconciliation, reconciliation_difference"
DECISIONS = "withdrawal, refund, shift, cash_movement, audit_log"
MONEY = f"payment, {LEDGER}, {RECEIPTS}, {GATEWAYS}, {DECISIONS}"
CLEARED = f"active_session, parking_session, parking_check, parking_right, idempotency_key, {MONEY}"
FUNDS = 10_000_000


# Examples are checked for what they say, not for how long a busy machine takes over them.
settings.register_profile("iparking", deadline=None)
settings.load_profile("iparking")


# Files with few tests that take long each, longest first: begun last, one of them would keep one worker busy while the
# others have nothing left.
LONG = (
    "contract/test_openapi.py", "stack/test_pooler.py", "stack/test_faults.py", "app/test_demo.py",
    "app/test_session_machine.py", "bench/test_core.py", "app/test_history.py", "stack/test_redis_cluster.py",
    "stack/test_replica.py", "stack/test_up.py", "bench/test_faults.py", "bench/test_growth.py", "bench/test_pooler.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, which xdist keeps with --no-loadscope-reorder; within a file nothing changes its place."""
    order = {ROOT / "tests" / name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path, len(LONG)))


def pytest_configure(config: pytest.Config) -> None:
    if not os.environ.get("IPARKING_TEST_DATABASE_URL") or not os.environ.get("IPARKING_TEST_REDIS_URL"):
        pytest.exit("the tests need a private PostgreSQL and Redis: run ./iparking test", returncode=2)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data and standards; a test that needs it is skipped without it, and fails in CI."""
    folder = Path(os.environ.get("IPARKING_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        reason = "shared data (IPARKING_SHARED) is not on this machine"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return folder


def admin_connection() -> psycopg.Connection:
    return psycopg.connect(os.environ["IPARKING_TEST_DATABASE_URL"], autocommit=True)


def url_of(database: str) -> str:
    url = make_url(os.environ["IPARKING_TEST_DATABASE_URL"]).set(database=database)
    return url.render_as_string(hide_password=False)


def source_hash() -> str:
    """A hash of all that a template is made from: migrations, SQL functions, data, and the code that loads them."""
    digest = hashlib.sha256()
    for folder in ("migrations", "zones", "billing"):
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix in (".py", ".sql", ".geojson", ".csv", ".toml"):
                digest.update(file.read_bytes())
    return digest.hexdigest()


def drop_database(connection: psycopg.Connection, name: str) -> None:
    connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def make_templates(connection: psycopg.Connection) -> None:
    """Make both templates anew unless they stand and come from the very same sources."""
    wanted = source_hash()
    query = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = ANY(%s)"
    if connection.execute(query, [list(TEMPLATES.values())]).fetchall() == [(wanted,), (wanted,)]:
        return
    for kind, name in TEMPLATES.items():
        drop_database(connection, name)
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        upgrade(url_of(name))
        if kind == "city":
            load_default_city(url_of(name))
    for name in TEMPLATES.values():
        connection.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(wanted)))


def copy_of(kind: str, worker: str) -> Iterator[str]:
    name = f"{TEMPLATES[kind]}_{worker}_{os.getpid()}"
    with admin_connection() as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [TEMPLATE_LOCK])
        make_templates(connection)
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(TEMPLATES[kind]))
        )
        connection.execute("SELECT pg_advisory_unlock(%s)", [TEMPLATE_LOCK])
    yield url_of(name)
    with admin_connection() as connection:
        drop_database(connection, name)


@pytest.fixture(scope="session")
def worker_id(request: pytest.FixtureRequest) -> str:
    return getattr(request.config, "workerinput", {}).get("workerid", "main")


@pytest.fixture(scope="session")
def empty_database(worker_id: str) -> Iterator[str]:
    yield from copy_of("empty", worker_id)


@pytest.fixture(scope="session")
def city_database(worker_id: str) -> Iterator[str]:
    yield from copy_of("city", worker_id)


@pytest.fixture
def engine(empty_database: str) -> Iterator[Engine]:
    """An engine on a migrated database that holds no rows."""
    engine = create_engine(sqlalchemy_url(empty_database))
    with engine.begin() as connection:
        tables = connection.exec_driver_sql(
            "SELECT quote_ident(relname) FROM pg_class WHERE relkind IN ('r', 'p') "
            "AND NOT relispartition AND relnamespace = 'public'::regnamespace "
            "AND relname NOT IN ('alembic_version', 'spatial_ref_sys', 'revision', 'vat_rate', 'city_share_rate')"
        ).scalars()
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")  # the ledger refuses it otherwise
        connection.connection.driver_connection.execute(emptying(tables))
    yield engine
    engine.dispose()


@pytest.fixture
def database_url(city_database: str) -> str:
    """A database with the shipped city (nine districts, zones, rates), nobody parked in it, and funded drivers."""
    with psycopg.connect(city_database) as connection:
        clear(connection)
        connection.execute(
            "UPDATE zone_occupancy SET occupied = 0, version = version + 1, next_over = NULL "
            "WHERE occupied <> 0 OR next_over IS NOT NULL"
        )
    return city_database


def emptying(tables: Iterable[str]) -> str:
    """Statements that empty tables. For few rows DELETE takes an eighth of TRUNCATE's time, which makes files anew."""
    return "; ".join(f"DELETE FROM {table}" for table in tables)


def clear(connection: psycopg.Connection, *more: str) -> None:
    """Empty the tables of sessions, checks and money (and `more`), and fund the drivers anew, in one transaction."""
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")  # the ledger refuses it otherwise
        connection.execute(emptying([*CLEARED.split(", "), *more]))
        connection.execute("SET LOCAL session_replication_role = origin")
        fund(connection)


def fund(connection: psycopg.Connection) -> None:
    """Give every driver of the keys FUNDS đồng."""
    drivers = ["driver", *(f"driver-{n}" for n in range(1, len(DRIVERS) + 1))]
    ledger.fund(connection, drivers, FUNDS, datetime(2018, 1, 1, tzinfo=HANOI))


@pytest.fixture
def own_database(city_database: str) -> Iterator[str]:
    """A copy of the city of this test's own, whose tables it may change."""
    yield from copy_of("city", "own")


@pytest.fixture
def redis_url(worker_id: str) -> str:
    """An empty Redis database of this worker's own."""
    first = urlsplit(os.environ["IPARKING_TEST_REDIS_URL"])
    number = int(first.path.strip("/") or 0) + int(worker_id.removeprefix("gw") if worker_id != "main" else 0)
    url = urlunsplit(first._replace(path=f"/{number}"))
    with Redis.from_url(url) as redis:
        redis.flushdb()
    return url


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    """A Redis Cluster of this worker's own; a test that harms it waits until it is whole again."""
    with running_cluster() as cluster:
        yield cluster


class SteppedClock:
    """A clock that a test moves by hand."""

    speed = 1.0

    def __init__(self, now: str) -> None:
        self.instant = datetime.fromisoformat(now).astimezone(UTC)

    def now(self) -> datetime:
        return self.instant

    def off(self) -> float:
        return 0.0

    def at(self, now: str) -> None:
        """Jump to an instant; one without an offset is Hanoi's."""
        instant = datetime.fromisoformat(now)
        self.instant = (instant if instant.tzinfo else instant.replace(tzinfo=HANOI)).astimezone(UTC)

    def advance(self, **delta: float) -> None:
        """Move on: advance(minutes=61)."""
        self.instant += timedelta(**delta)


@pytest.fixture
def clock() -> SteppedClock:
    """A Wednesday morning in Hanoi."""
    return SteppedClock("2026-10-14T08:00:00+07:00")


KEYS = {role: f"{role}-key" for role in ("driver", "warden", "attendant", "planner", "operator", "device")}
DRIVERS = [f"driver-key-{n}" for n in range(1, 9)]
ATTENDANTS = [f"attendant-key-{n}" for n in range(1, 3)]
MANY = {"driver": DRIVERS, "attendant": ATTENDANTS}


@pytest.fixture(scope="session")
def keys_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    path.write_text(json.dumps(KEYS | {"drivers": DRIVERS, "attendants": ATTENDANTS}))
    return path


def as_service(database_url: str) -> str:
    """The same database for the role that the service has: it owns nothing."""
    service = os.environ.get("IPARKING_TEST_SERVICE_URL")
    if service is None:
        return database_url
    login = make_url(service)
    url = make_url(database_url).set(username=login.username, password=login.password)
    return url.render_as_string(hide_password=False)


def settings_of(database_url: str, redis_url: str, keys_path: Path) -> Settings:
    """What the service under test runs with, as the role that the service has; tests/stack/test_pooler.py sends it
    through a PgBouncer."""
    port = os.environ.get("IPARKING_TEST_POOLER_PORT")
    if port is None:
        return Settings(as_service(database_url), redis_url, keys_path, "test", owner_url=database_url)
    pooled = make_url(database_url).set(port=int(port))
    url, pulse = (one.render_as_string(hide_password=False) for one in (pooled, pooled.set(database=PULSE)))
    return Settings(url, redis_url, keys_path, "test", pooler="transaction", pulse_url=pulse, owner_url=database_url)


@pytest.fixture
def resources(database_url: str, redis_url: str, keys_path: Path, clock: SteppedClock) -> Iterator[Resources]:
    """The service's resources on a city with nobody in it, with a clock that the test moves."""
    held = replace(make_resources(settings_of(database_url, redis_url, keys_path)), clock=clock)
    yield held
    held.close()


@contextmanager
def owning(resources: Resources) -> Iterator[Connection]:
    """A transaction of the tables' owner, for what the service may not do: imports of zones and prices."""
    assert resources.settings.owner_url is not None
    owner = create_engine(sqlalchemy_url(resources.settings.owner_url), poolclass=NullPool)
    with owner.begin() as connection:
        yield connection


DEAD = {"one": "redis://127.0.0.1:1/0", "cluster": "redis+cluster://127.0.0.1:1,127.0.0.1:2/0"}


@pytest.fixture(params=DEAD.values(), ids=DEAD)
def lonely_client(resources: Resources, request: pytest.FixtureRequest) -> Iterator["Client"]:
    """A client of a service whose Redis, of either kind, is dead (nobody listens on its ports)."""
    lonely = replace(resources, redis=connect(request.param, 0.25))
    app = create_app(lonely.settings, lonely)
    app.test_client_class = Client
    yield app.test_client()  # type: ignore[misc]
    lonely.copies.close()
    lonely.redis.close()


@pytest.fixture
def app(resources: Resources) -> Flask:
    return create_app(resources.settings, resources)


class Client(FlaskClient):
    """Flask's test client that sends a role's key: client.post(path, json=…, role="driver", key="idempotency")."""

    def open(self, *args: Any, role: str | None = None, key: str | None = None, **kwargs: Any) -> Any:
        headers = Headers(kwargs.pop("headers", None) or {})
        if role is not None:
            one, _, number = role.partition("-")
            token = MANY[one][int(number) - 1] if number else KEYS[role]
            headers["Authorization"] = f"Bearer {token}"
        if key is not None:
            headers["Idempotency-Key"] = key
        return super().open(*args, headers=headers, **kwargs)


@pytest.fixture
def client(app: Flask) -> Client:
    app.test_client_class = Client
    return app.test_client()  # type: ignore[return-value]
