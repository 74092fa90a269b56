"""A wall clock that is set while it runs moves nothing; processes that disagree lose and double nothing."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from app import create_app
from app.clock import RealClock, SteadyTime, booted, make_clock
from app.config import BadSetting, Settings
from app.resources import Resources, make_resources
from app.stack import Server, Stack
from tests.conftest import Client, SteppedClock

SESSION = {"zone": "HK-001", "plate": "30A-123.45", "vehicle_class": "car", "payment_method": "wallet"}
HOUR = timedelta(hours=1)


class Wall:
    """A wall clock that can be set."""

    def __init__(self) -> None:
        self.by = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.by


@pytest.mark.parametrize("jump", [HOUR, -HOUR, timedelta(days=400), timedelta(seconds=-5)])
def test_a_jump_of_the_wall_clock_is_told_and_not_followed(jump: timedelta):
    wall = Wall()
    clock = make_clock(Settings("postgresql://u@127.0.0.1/d", "redis://127.0.0.1/0"), wall)
    before = clock.now()
    wall.by = jump
    assert timedelta() <= clock.now() - before < timedelta(minutes=5)
    assert abs(clock.off() - jump.total_seconds()) < 1
    wall.by = timedelta()
    assert abs(clock.off()) < 1


def test_a_process_that_begins_goes_by_the_wall_clock():
    wall = Wall()
    wall.by = HOUR
    ahead = SteadyTime(wall).now() - datetime.now(UTC)
    assert HOUR - timedelta(minutes=1) < ahead < HOUR + timedelta(minutes=1)


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_process_that_begins_later_agrees_with_the_first_of_its_service(jump: timedelta):
    wall = Wall()
    settings = Settings("postgresql://u@127.0.0.1/d", "redis://127.0.0.1/0", clock_booted=booted(wall))
    first = make_clock(settings, wall)
    wall.by = jump
    second = make_clock(settings, wall)
    before = first.now()
    assert timedelta() <= second.now() - before < timedelta(seconds=5)
    assert abs(second.off() - jump.total_seconds()) < 1


def test_all_processes_of_a_server_are_told_one_instant(tmp_path: Path):
    given = {"IPARKING_DATABASE_URL": "postgresql://u@127.0.0.1/d", "IPARKING_REDIS_URL": "redis://127.0.0.1/0"}
    server = Server(Stack(tmp_path, given))
    told = [Settings.from_environment(server._environment()).clock_booted for _ in range(2)]
    assert told[0] == told[1] and abs(told[0] - booted()) < timedelta(seconds=5)
    other = {**server._environment(), "IPARKING_CLOCK_BOOTED": "yesterday"}
    with pytest.raises(BadSetting, match="IPARKING_CLOCK_BOOTED: 'yesterday' is not an RFC 3339 instant"):
        Settings.from_environment(other)


def test_readiness_tells_of_a_clock_that_was_set(resources: Resources):
    wall = Wall()
    app = create_app(resources.settings, replace(resources, clock=RealClock(time=SteadyTime(wall))))
    assert app.test_client().get("/readyz").json["checks"]["clock"] == "ok"
    wall.by = HOUR
    ready = app.test_client().get("/readyz")
    assert (ready.status_code, ready.json["checks"]["clock"]) == (
        200,
        "set by +3600.0 s since the service began: restart it",
    )


Process = Callable[[timedelta], Client]


@pytest.fixture
def process(resources: Resources, clock: SteppedClock) -> Iterator[Process]:
    """Another process of the service on the same database, whose clock differs from the usual one."""
    held: list[Resources] = []

    def make(by: timedelta) -> Client:
        its = SteppedClock((clock.now() + by).isoformat())
        held.append(replace(make_resources(resources.settings), clock=its))
        app = create_app(resources.settings, held[-1])
        app.test_client_class = Client
        return app.test_client()  # type: ignore[return-value]

    yield make
    for one in held:
        one.close()


@pytest.mark.parametrize("by", [HOUR, -HOUR])
def test_one_key_gives_one_session_whichever_clock_is_asked(client: Client, process: Process, by: timedelta):
    other = process(by)
    first = client.post("/v1/sessions", json=SESSION, role="driver", key="k")
    again = other.post("/v1/sessions", json=SESSION, role="driver", key="k")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json == again.json
    assert other.post("/v1/sessions", json=SESSION, role="driver", key="k2").json["code"] == "already_parked"


@pytest.mark.parametrize("by", [HOUR, -HOUR])
def test_no_stay_is_negative_where_clocks_differ(client: Client, process: Process, resources: Resources, by: timedelta):
    other = process(by)
    started = other.post("/v1/sessions", json=SESSION, role="driver").json
    stopped = client.post(f"/v1/sessions/{started['id']}/stop", json={}, role="driver").json
    assert stopped["state"] == "ended"
    stay = datetime.fromisoformat(stopped["ended_at"]) - datetime.fromisoformat(stopped["started_at"])
    assert stay == max(-by, timedelta()), "as long as the two clocks make it, and never less than nothing"
    with psycopg.connect(resources.settings.owner_url) as connection:
        counted = connection.execute("SELECT sum(occupied) FROM zone_occupancy").fetchone()
        kept = connection.execute("SELECT count(*), min(fee) FROM parking_session").fetchone()
    assert counted == (0,) and kept == (1, stopped["fee"]["amount"]) and kept[1] > 0
