"""The city changes while people park: places taken away, zones closed or redrawn, admission turned, classes dropped.

Changes come as they come to the service: by an import, or (a zone that is closed) by the end of its validity.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
import shapely
from geoalchemy2.shape import to_shape
from sqlalchemy import select

from app import jobs
from app.database import database_state
from app.resources import Resources
from tests.conftest import Client, SteppedClock, owning
from zones import imports
from zones.imports.reader import ZoneRecord
from zones.imports.shapes import canonical
from zones.models import Zone

KERB = "HK-001"
Change = Callable[..., None]


@pytest.fixture
def change(resources: Resources, clock: SteppedClock) -> Iterator[Change]:
    """Import the zone KERB with other facts: change(capacity={"car": 1}). It is as it was at the end."""
    with owning(resources) as connection:
        row = connection.execute(select(Zone.__table__).where(Zone.code == KERB, Zone.valid_to.is_(None))).one()
    facts = {
        name: getattr(row, name) for name in ZoneRecord.__dataclass_fields__ if name not in ("capacity", "geometry")
    }
    shipped = ZoneRecord(
        **facts, capacity=resources.catalogue.places.by_code[KERB].capacity, geometry=canonical(to_shape(row.geometry))
    )

    def change(**facts: Any) -> None:
        with owning(resources) as connection:
            imports.apply("zones", connection, [replace(shipped, **facts)], clock.now())
        resources.catalogue.refresh()  # which every process does once a second

    yield change
    with owning(resources) as connection:
        connection.exec_driver_sql("DELETE FROM zone WHERE code = %s AND id <> %s", (KERB, row.id))
        connection.exec_driver_sql("UPDATE zone SET valid_to = NULL WHERE id = %s", (row.id,))
        imports.apply("zones", connection, [shipped], clock.now())


@pytest.fixture
def close_zone(resources: Resources, change: Change, clock: SteppedClock) -> Callable[[], None]:
    """End the validity of KERB (`change` opens it again)."""

    def close_zone() -> None:
        with owning(resources) as connection:
            connection.exec_driver_sql("UPDATE zone SET valid_to = %s WHERE code = %s", (clock.now(), KERB))
        resources.catalogue.refresh()

    return close_zone


@pytest.mark.usefixtures("client", "change")
def test_another_database_is_read_whole_though_its_revisions_are_the_same(
    resources: Resources, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
):
    catalogue = resources.catalogue
    with owning(resources) as connection:
        connection.exec_driver_sql("UPDATE zone SET valid_to = %s WHERE code = %s", (clock.now(), KERB))
        connection.exec_driver_sql("UPDATE revision SET value = value - 1 WHERE name = 'zones'")
    catalogue.refresh()
    assert KERB in catalogue.places.by_code, "nothing says that it changed"
    monkeypatch.setattr(
        "app.catalogue.database_state", lambda connection: database_state(connection)._replace(id="restored")
    )
    catalogue.refresh()
    assert KERB not in catalogue.places.by_code


def start(client: Client, plate: str = "30A-123.45", *, key: str | None = None, **more: Any) -> Any:
    body = {"zone": KERB, "plate": plate, "vehicle_class": "car", "payment_method": "wallet"} | more
    return client.post("/v1/sessions", json=body, role="driver", key=key)


def stop(client: Client, session: dict) -> Any:
    return client.post(f"/v1/sessions/{session['id']}/stop", json={}, role="driver")


def extend(client: Client, session: dict, minutes: int) -> Any:
    return client.post(f"/v1/sessions/{session['id']}/extend", json={"minutes": minutes}, role="driver")


def find(client: Client, session: dict) -> dict:
    return client.get(f"/v1/sessions/{session['id']}", role="driver").json


def car(client: Client) -> dict:
    return client.get(f"/v1/zones/{KERB}/availability").json["car"]


class TestCapacityLoweredBelowTheCount:
    def test_who_stands_there_stays_and_nobody_comes_until_enough_have_left(self, client: Client, change: Change):
        change(admission="strict", capacity={"car": 3})
        standing = [start(client, f"30A-{n:03}.00").json for n in range(3)]
        change(admission="strict", capacity={"car": 1})
        refusals = []
        for session in standing:
            refusals.append(start(client, "30A-999.99").json["code"])
            assert stop(client, session).status_code == 200
        assert refusals == ["zone_full"] * 3
        assert start(client, "30A-999.99").status_code == 201

    def test_what_is_over_is_shown_as_overflow(self, client: Client, resources: Resources, change: Change):
        for n in range(3):
            start(client, f"30A-{n:03}.00")
        change(capacity={"car": 1})
        jobs.reconcile(resources)
        counts = car(client)
        assert (counts["occupied"], counts["capacity"], counts["available"], counts["overflow"]) == (3, 1, 0, 2)


class TestClassOfCapacityZero:
    @pytest.mark.parametrize("admission", ["strict", "advisory"])
    def test_starts_are_refused_and_who_stands_there_is_not_harmed(
        self, client: Client, change: Change, admission: str
    ):
        change(admission=admission)
        session = start(client, minutes=30).json
        change(admission=admission, capacity={"motorbike": 40})
        refused = start(client, "30A-999.99")
        assert (refused.status_code, refused.json["code"]) == (422, "class_not_served")
        assert extend(client, session, 30).status_code == 200
        assert stop(client, session).json["state"] == "ended"

    @pytest.mark.parametrize("admission", ["strict", "advisory"])
    def test_a_process_that_has_not_seen_the_change_yet_answers_the_same(
        self, client: Client, resources: Resources, change: Change, admission: str, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(resources.catalogue, "refresh", lambda: None)
        change(admission=admission, capacity={"motorbike": 40})
        refused = start(client)
        assert (refused.status_code, refused.json["code"]) == (422, "class_not_served")

    def test_quotes_are_refused_too(self, client: Client, change: Change):
        change(capacity={"motorbike": 40})
        wanted = {"zone": KERB, "vehicle_class": "car", "start": "2026-10-14T08:00:00+07:00", "minutes": 30}
        assert client.post("/v1/quotes", json=wanted, role="driver").json["code"] == "class_not_served"


class TestClosedZone:
    def test_new_starts_are_refused_and_running_sessions_go_on_as_agreed(
        self, client: Client, clock: SteppedClock, close_zone: Callable[[], None]
    ):
        session = start(client, minutes=60).json
        open_ended = start(client, "30A-000.01").json
        close_zone()
        refused = start(client, "30A-999.99")
        assert (refused.status_code, refused.json["code"]) == (404, "unknown_zone")
        assert client.get(f"/v1/zones/{KERB}").status_code == 404
        assert extend(client, session, 60).json["fee"]["amount"] == 2 * session["fee"]["amount"]
        clock.advance(minutes=90)
        assert find(client, session)["state"] == "running"
        stopped = stop(client, session).json
        assert (stopped["state"], stopped["fee"]["amount"]) == ("ended", 2 * session["fee"]["amount"])
        assert stop(client, open_ended).json["fee"]["amount"] == 2 * open_ended["fee"]["amount"]

    def test_a_session_that_nobody_stops_is_over_and_tidied_as_ever(
        self, client: Client, resources: Resources, clock: SteppedClock, close_zone: Callable[[], None]
    ):
        session = start(client, minutes=30).json
        close_zone()
        clock.advance(minutes=46)
        assert find(client, session)["state"] == "expired"
        assert (jobs.release(resources), jobs.close(resources)) == (1, 1)
        assert find(client, session)["fee"] == session["fee"]
        start(client, zone="HK-002")
        assert client.get("/v1/admin/consistency", role="operator").json["divergences"] == 0

    def test_its_plate_may_not_park_elsewhere_meanwhile(self, client: Client, close_zone: Callable[[], None]):
        start(client)
        close_zone()
        assert start(client, zone="HK-002").json["code"] == "already_parked"


class TestKeyOfAStart:
    """Whatever has changed since: the same key and body get the first answer again."""

    def test_gets_its_answer_where_the_zone_is_closed(
        self, client: Client, clock: SteppedClock, close_zone: Callable[[], None]
    ):
        first = start(client, key="k", minutes=30)
        close_zone()
        assert start(client, key="k", minutes=30).data == first.data
        clock.advance(minutes=10)
        stop(client, first.json)
        again = start(client, key="k", minutes=30)
        assert (again.status_code, again.data) == (201, first.data), "also after it ended"
        assert start(client, key="k", minutes=31).json["code"] == "idempotency_conflict"
        assert start(client, key="l", minutes=30).json["code"] == "unknown_zone"
        clock.advance(hours=24)
        assert start(client, key="k", minutes=30).json["code"] == "unknown_zone", "it is forgotten"

    @pytest.mark.parametrize("facts", [{"capacity": {"motorbike": 40}}, {"max_stay_minutes": 10}])
    def test_gets_its_answer_where_the_zone_would_refuse_it_now(self, client: Client, change: Change, facts: dict):
        first = start(client, key="k", minutes=30)
        change(**facts)
        again = start(client, key="k", minutes=30)
        assert (again.status_code, again.data) == (201, first.data)
        assert start(client, "30A-999.99", key="l", minutes=30).status_code in (409, 422)


class TestRedrawnZone:
    def test_sessions_and_count_go_on_under_its_code(self, client: Client, clock: SteppedClock, change: Change):
        session = start(client, minutes=60).json
        clock.advance(minutes=10)
        change(geometry=canonical(shapely.box(105.86, 21.02, 105.861, 21.021)), max_stay_minutes=60)
        assert car(client)["occupied"] == 1
        second = start(client, "30A-999.99")
        assert second.status_code == 201 and car(client)["occupied"] == 2
        assert start(client, "30A-000.01", minutes=61).json["code"] == "max_stay_exceeded"
        assert extend(client, session, 60).status_code == 200, "the longest stay is that of its start"
        assert stop(client, session).status_code == 200 and stop(client, second.json).status_code == 200
        assert car(client)["occupied"] == 0


class TestAdmissionTurned:
    """Whether a session's place is free once its time is over is decided at its start."""

    def test_advisory_session_is_over_in_a_zone_that_became_strict(
        self, client: Client, resources: Resources, clock: SteppedClock, change: Change
    ):
        session = start(client, minutes=30).json
        change(admission="strict")
        clock.advance(minutes=30)
        assert car(client)["occupied"] == 0 and jobs.release(resources) == 1
        found = find(client, session)
        assert (found["state"], found["ended_at"]) == ("expired", found["ends_at"])

    def test_strict_session_stands_on_in_a_zone_that_became_advisory(
        self, client: Client, resources: Resources, clock: SteppedClock, change: Change
    ):
        change(admission="strict")
        session = start(client, minutes=30).json
        change(admission="advisory")
        clock.advance(minutes=90)
        jobs.release(resources)
        assert car(client)["occupied"] == 1
        assert stop(client, session).json["state"] == "ended" and car(client)["occupied"] == 0
        with psycopg.connect(resources.settings.owner_url) as connection:
            assert connection.execute("SELECT sum(occupied) FROM zone_occupancy").fetchone() == (0,)
