"""The periodic work: what it tidies changes no answer, and what Redis lost comes back."""

import psycopg

from app import jobs
from app.resources import Resources
from tests.conftest import Client, SteppedClock
from zones import occupancy
from zones.sessions import Count

ZONE = "HK-001"


def start(client: Client, plate: str = "30A-123.45", **more: object) -> dict:
    body = {"zone": ZONE, "plate": plate, "vehicle_class": "car", "payment_method": "wallet"} | more
    return client.post("/v1/sessions", json=body, role="driver").json


def find(client: Client, session: dict) -> dict:
    return client.get(f"/v1/sessions/{session['id']}", role="driver").json


def free(client: Client) -> dict:
    return client.get(f"/v1/zones/{ZONE}/availability").json["car"]


def copy_of(resources: Resources) -> Count:
    return resources.copies.read([(ZONE, "car")])[ZONE, "car"]


def test_release_and_close_change_no_answer(client: Client, resources: Resources, clock: SteppedClock):
    session = start(client, minutes=30)
    clock.advance(minutes=30)
    before, count = find(client, session), free(client)["occupied"]
    assert jobs.release(resources) == 1 and jobs.release(resources) == 0
    assert (find(client, session), free(client)["occupied"]) == (before, count) == (before, 0)
    assert jobs.close(resources) == 0, "a late stop may still come"
    clock.advance(minutes=15, seconds=1)
    assert jobs.close(resources) == 1 and jobs.close(resources) == 0
    assert find(client, session) == before


def test_late_stop_between_release_and_close_gives_the_place_back_once(
    client: Client, resources: Resources, clock: SteppedClock
):
    session = start(client, minutes=30)
    start(client, "30A-999.99")
    clock.advance(minutes=31)
    jobs.release(resources)
    stopped = client.post(
        f"/v1/sessions/{session['id']}/stop", json={"stopped_at": "2026-10-14T08:29:00+07:00"}, role="driver"
    )
    assert stopped.json["state"] == "ended"
    assert free(client)["occupied"] == 1


def test_strict_overstay_is_left_alone(client: Client, resources: Resources, clock: SteppedClock):
    with psycopg.connect(resources.settings.owner_url) as connection:
        query = "SELECT zone_code FROM zone_occupancy WHERE admission = 'strict' AND vehicle_class = 'car' LIMIT 1"
        zone = connection.execute(query).fetchone()[0]
    session = start(client, zone=zone, minutes=10)
    clock.advance(hours=2)
    assert jobs.release(resources) == 0 and jobs.close(resources) == 0
    assert find(client, session)["ended_at"] is None


def test_reconciler_heals_lost_wrong_and_foreign_copies(client: Client, resources: Resources):
    start(client)
    jobs.reconcile(resources)
    assert jobs.reconcile(resources) == 0
    right = copy_of(resources)
    resources.copies.flush()
    resources.redis.send([("DEL", resources.copies.key(ZONE, "car"))])
    assert jobs.reconcile(resources) == 1 and copy_of(resources) == right
    resources.copies.overwrite([right._replace(occupied=9)])
    assert jobs.reconcile(resources) == 1 and copy_of(resources) == right
    resources.copies.overwrite([right._replace(version=right.version + 1_000, occupied=9)])
    assert jobs.reconcile(resources) == 1 and copy_of(resources) == right


def test_late_and_repeated_pushes_do_no_harm(client: Client, resources: Resources):
    start(client)
    newest = copy_of(resources)
    resources.copies.push([newest._replace(version=newest.version - 1, occupied=0), newest])
    assert copy_of(resources) == newest


def test_rebuild_overwrites_every_copy(client: Client, resources: Resources):
    start(client)
    right = copy_of(resources)
    resources.copies.overwrite([right._replace(version=10**9, occupied=3)])
    made = occupancy.rebuild(resources.connections.get(), resources.copies)
    assert copy_of(resources) == right and made == len(occupancy.rows(resources.connections.get()))


def test_all_keys_of_a_zone_share_a_hash_tag(client: Client, resources: Resources):
    keys = {resources.copies.key(ZONE, vehicle_class) for vehicle_class in ("car", "motorbike")}
    assert len(keys) == 2 and all(f":{{{ZONE}}}:" in key for key in keys)
    assert all(key.startswith(resources.catalogue.database_id) for key in keys)


def test_partitions_are_made_ahead_once(resources: Resources):
    jobs.make_partitions(resources)
    assert jobs.make_partitions(resources) == 0


def test_every_job_runs_and_one_that_fails_stops_none(resources: Resources, monkeypatch, caplog):
    def broken(_: Resources) -> int:
        raise psycopg.OperationalError("gone")

    monkeypatch.setitem(jobs.JOBS, "release", jobs.Job(broken, every=1))
    due: dict[str, float] = {}
    jobs.run_due(resources, due, now=1_000.0)
    assert set(due) == set(jobs.JOBS) and min(due.values()) == 1_001.0
    assert "release failed" in caplog.text


def test_every_endpoint_of_a_session_works_without_redis(lonely_client: Client):
    session = start(lonely_client, minutes=30)
    assert session["state"] == "running"
    path = f"/v1/sessions/{session['id']}"
    assert lonely_client.post(f"{path}/extend", json={"minutes": 5}, role="driver").status_code == 200
    assert lonely_client.post(f"{path}/stop", json={}, role="driver").json["state"] == "ended"
    assert len(lonely_client.get("/v1/zones?limit=1000").json["features"]) >= 151
    assert lonely_client.get("/v1/admin/consistency", role="operator").json["divergences"] == 0


def test_reconciler_leaves_a_dead_redis_for_the_next_round(resources: Resources, lonely_client: Client):
    lonely = lonely_client.application.extensions["iparking"]
    assert jobs.reconcile(lonely) == 0
