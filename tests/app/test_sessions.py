"""Sessions over HTTP: what a driver's phone sees, second by second over each boundary."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from flask import Flask

from app.resources import Resources
from tests.conftest import Client, SteppedClock, owning

KERB = "HK-001"


@pytest.fixture
def strict_zone(database_url: str) -> str:
    """The strict zone with the fewest car bays."""
    with psycopg.connect(database_url) as connection:
        query = "SELECT zone_code FROM zone_occupancy WHERE admission = 'strict' AND vehicle_class = 'car'"
        return connection.execute(query + " ORDER BY capacity, zone_code LIMIT 1").fetchone()[0]


def body(plate: str = "30A-123.45", zone: str = KERB, **more: object) -> dict:
    return {"zone": zone, "plate": plate, "vehicle_class": "car", "payment_method": "wallet"} | more


def start(client: Client, plate: str = "30A-123.45", *, key: str | None = None, role: str = "driver", **more: object):
    return client.post("/v1/sessions", json=body(plate, **more), role=role, key=key)


def stop(client: Client, session_id: str, *, key: str | None = None, role: str = "driver", **more: object):
    return client.post(f"/v1/sessions/{session_id}/stop", json=more, role=role, key=key)


def extend(client: Client, session_id: str, minutes: int, *, key: str | None = None):
    return client.post(f"/v1/sessions/{session_id}/extend", json={"minutes": minutes}, role="driver", key=key)


def find(client: Client, session_id: str):
    return client.get(f"/v1/sessions/{session_id}", role="driver")


def occupied(client: Client, zone: str = KERB) -> int:
    return client.get(f"/v1/zones/{zone}/availability").json["car"]["occupied"]


def test_session_runs_and_is_charged_by_started_hours(client: Client, clock: SteppedClock):
    started = start(client)
    assert started.status_code == 201
    assert started.json["state"] == "running" and started.json["ends_at"] is None
    first_hour = started.json["fee"]["amount"]
    clock.advance(minutes=60)
    assert find(client, started.json["id"]).json["fee"]["amount"] == first_hour
    clock.advance(milliseconds=1)
    assert find(client, started.json["id"]).json["fee"]["amount"] == 2 * first_hour
    stopped = stop(client, started.json["id"])
    assert stopped.status_code == 200
    assert stopped.json["state"] == "ended" and stopped.json["fee"]["amount"] == 2 * first_hour
    assert find(client, started.json["id"]).json == stopped.json


def test_occupancy_follows_starts_and_stops(client: Client):
    assert occupied(client) == 0
    session = start(client).json
    assert occupied(client) == 1
    stop(client, session["id"])
    assert occupied(client) == 0


def test_second_start_with_same_plate_is_refused_in_the_whole_city(client: Client):
    start(client)
    refused = start(client, "30a 12345", zone="BD-001", role="driver-1")
    assert refused.status_code == 409 and refused.json["code"] == "already_parked"


def test_same_digits_on_a_motorbike_are_another_vehicle(client: Client):
    assert start(client, "29E11234").status_code == 201
    assert start(client, "29E11234", vehicle_class="motorbike").status_code == 201


def test_full_strict_zone_refuses_and_leaves_nothing_behind(client: Client, strict_zone: str):
    capacity = client.get(f"/v1/zones/{strict_zone}").json["properties"]["capacity"]["car"]
    for n in range(capacity):
        assert start(client, f"30A-{n:03}.00", zone=strict_zone).status_code == 201
    refused = start(client, "30A-999.99", zone=strict_zone, key="again")
    assert refused.status_code == 409 and refused.json["code"] == "zone_full"
    assert occupied(client, strict_zone) == capacity
    elsewhere = start(client, "30A-999.99", key="again")
    assert elsewhere.status_code == 201, "a refusal is not remembered"


def test_advisory_zone_accepts_past_capacity_and_shows_the_overflow(client: Client):
    capacity = client.get(f"/v1/zones/{KERB}").json["properties"]["capacity"]["car"]
    for n in range(capacity + 2):
        assert start(client, f"30A-{n:03}.00").status_code == 201
    car = client.get(f"/v1/zones/{KERB}/availability").json["car"]
    assert (car["occupied"], car["available"], car["overflow"]) == (capacity + 2, 0, 2)


def test_forty_starts_of_one_plate_admit_exactly_one(app: Flask, database_url: str):
    def once(n: int) -> tuple[int, str | None]:
        answer = start(app.test_client(), role=f"driver-{n % 8 + 1}")
        return answer.status_code, answer.json.get("code")

    app.test_client_class = Client
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(once, range(40)))
    assert sorted(answers) == [(201, None)] + [(409, "already_parked")] * 39
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT sum(occupied) FROM zone_occupancy").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM active_session").fetchone() == (1,)


def test_one_key_sent_twenty_times_at_once_starts_one_session(app: Flask, database_url: str):
    app.test_client_class = Client
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: start(app.test_client(), key="k"), range(20)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.data for answer in answers}) == 1
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT sum(occupied) FROM zone_occupancy").fetchone() == (1,)


def test_retried_start_that_races_its_own_stop_makes_no_second_session(app: Flask, database_url: str):
    app.test_client_class = Client
    for n in range(10):
        first = start(app.test_client(), f"30A-{n:03}.00", key=f"k{n}")
        with ThreadPoolExecutor(5) as pool:
            stopping = pool.submit(stop, app.test_client(), first.json["id"])
            again = list(pool.map(lambda _, n=n: start(app.test_client(), f"30A-{n:03}.00", key=f"k{n}"), range(4)))
        assert stopping.result().status_code == 200
        assert {(answer.status_code, answer.data) for answer in again} == {(201, first.data)}
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM active_session").fetchone() == (0,)
        assert connection.execute("SELECT sum(occupied) FROM zone_occupancy").fetchone() == (0,)


def test_two_stops_at_once_end_a_session_once(app: Flask, database_url: str):
    app.test_client_class = Client
    session = start(app.test_client()).json
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: stop(app.test_client(), session["id"]), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM parking_session").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM ledger_transaction WHERE kind = 'parking'").fetchone() == (1,)


class TestIdempotency:
    def test_same_key_and_body_get_the_first_answer_again(self, client: Client, clock: SteppedClock):
        first = start(client, key="k", minutes=30)
        clock.advance(minutes=5)
        extend(client, first.json["id"], 60)
        assert start(client, key="k", minutes=30).data == first.data, "as it was, before it was extended"
        stop(client, first.json["id"])
        again = start(client, "30A12345", key="k", minutes=30)
        assert (again.status_code, again.data) == (201, first.data), "also after it ended, however the plate is written"
        assert occupied(client) == 0

    def test_same_key_with_another_body_is_a_conflict(self, client: Client):
        session = start(client, key="k").json
        for other in ({"minutes": 30}, {"zone": "BD-001"}, {"payment_method": "cash"}, {"plate": "30A-999.99"}):
            answer = client.post("/v1/sessions", json=body() | other, role="driver", key="k")
            assert (answer.status_code, answer.json["code"]) == (422, "idempotency_conflict"), other
        stop(client, session["id"])
        answer = start(client, "30A-999.99", key="k")
        assert (answer.status_code, answer.json["code"]) == (422, "idempotency_conflict")

    def test_keys_belong_to_the_client(self, client: Client):
        assert start(client, key="k", role="driver-1").status_code == 201
        assert start(client, "30A-999.99", key="k", role="driver-2").status_code == 201

    def test_key_is_forgotten_after_a_day(self, client: Client, clock: SteppedClock):
        first = start(client, key="k").json
        stop(client, first["id"])
        clock.advance(hours=23, minutes=59)
        assert start(client, key="k").json["id"] == first["id"]
        clock.advance(minutes=1)
        assert start(client, key="k").json["id"] != first["id"]

    @pytest.mark.parametrize("key", ['"quoted"', "!", "~" * 255])
    def test_key_is_taken_as_it_comes(self, client: Client, key: str):
        assert start(client, key=key).data == start(client, key=key).data

    @pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "đ", "tab\there"])
    def test_key_outside_the_grammar_is_named(self, client: Client, key: str):
        answer = client.post("/v1/sessions", json=body(), role="driver", headers={"Idempotency-Key": key})
        assert (answer.status_code, answer.json["code"]) == (400, "invalid_parameter")
        assert answer.json["errors"][0]["field"] == "Idempotency-Key"

    def test_stop_repeats_its_answer_and_refuses_another(self, client: Client, clock: SteppedClock):
        session = start(client).json
        clock.advance(minutes=10)
        first = stop(client, session["id"], key="s")
        clock.advance(minutes=10)
        assert stop(client, session["id"], key="s").data == first.data
        other = stop(client, session["id"], key="s", stopped_at="2026-10-14T08:05:00+07:00")
        assert (other.status_code, other.json["code"]) == (422, "idempotency_conflict")
        assert stop(client, session["id"], key="t").json["code"] == "session_ended"
        assert stop(client, session["id"]).json["code"] == "session_ended"

    def test_extend_with_a_key_adds_once(self, client: Client):
        session = start(client, minutes=30).json
        first = extend(client, session["id"], 30, key="e")
        assert extend(client, session["id"], 30, key="e").data == first.data
        assert find(client, session["id"]).json["ends_at"] == first.json["ends_at"] == "2026-10-14T09:00:00.000+07:00"
        assert extend(client, session["id"], 31, key="e").json["code"] == "idempotency_conflict"


class TestEndOfPrepaidTime:
    def test_advisory_session_is_over_at_the_instant(self, client: Client, clock: SteppedClock):
        session = start(client, minutes=30).json
        clock.at("2026-10-14T08:29:59.999999")
        assert find(client, session["id"]).json["state"] == "running" and occupied(client) == 1
        clock.at("2026-10-14T08:30:00")
        answer = find(client, session["id"]).json
        assert (answer["state"], answer["ended_at"]) == ("expired", "2026-10-14T08:30:00.000+07:00")
        assert answer["fee"] == session["fee"]
        assert occupied(client) == 0, "its place is free at once, before any job ran"

    def test_expired_plate_may_start_anew(self, client: Client, clock: SteppedClock):
        first = start(client, minutes=30).json
        clock.advance(minutes=29, seconds=59)
        assert start(client, minutes=30).json["code"] == "already_parked"
        clock.advance(seconds=1)
        second = start(client, minutes=30)
        assert second.status_code == 201 and second.json["id"] != first["id"]
        assert find(client, first["id"]).json["ended_at"] == first["ends_at"]
        assert occupied(client) == 1

    def test_strict_session_stands_on_until_its_stop(self, client: Client, clock: SteppedClock, strict_zone: str):
        session = start(client, zone=strict_zone, minutes=60).json
        clock.advance(minutes=90)
        over = find(client, session["id"]).json
        assert (over["state"], over["ended_at"]) == ("expired", None)
        assert over["fee"]["amount"] > session["fee"]["amount"], "the stay goes on at the same rate"
        assert occupied(client, strict_zone) == 1
        stopped = stop(client, session["id"]).json
        assert stopped["state"] == "ended" and stopped["fee"] == over["fee"]
        assert occupied(client, strict_zone) == 0

    def test_strict_overstay_of_weeks_is_priced_to_its_end(self, client: Client, clock: SteppedClock, strict_zone: str):
        session = start(client, zone=strict_zone).json
        clock.advance(days=20)
        seen = find(client, session["id"]).json["fee"]["amount"]
        stopped = stop(client, session["id"])
        assert stopped.status_code == 200 and stopped.json["fee"]["amount"] == seen
        quote = {"zone": strict_zone, "vehicle_class": "car", "start": session["started_at"], "minutes": 1440}
        a_day = client.post("/v1/quotes", json=quote, role="driver").json["total"]["amount"]
        assert seen > 15 * a_day

    def test_strict_session_ends_where_its_plate_starts_anew(
        self, client: Client, clock: SteppedClock, strict_zone: str
    ):
        first = start(client, zone=strict_zone, minutes=60).json
        clock.advance(minutes=150)
        assert start(client, zone=KERB).status_code == 201
        closed = find(client, first["id"]).json
        assert (closed["state"], closed["ended_at"]) == ("expired", "2026-10-14T10:30:00.000+07:00")
        assert closed["fee"]["amount"] > first["fee"]["amount"]
        assert occupied(client, strict_zone) == 0 and occupied(client, KERB) == 1

    def test_open_session_is_over_at_the_maximum_stay(self, client: Client, clock: SteppedClock):
        session = start(client).json
        clock.advance(hours=12)
        answer = find(client, session["id"]).json
        assert (answer["state"], answer["ends_at"], answer["ended_at"]) == (
            "expired",
            None,
            "2026-10-14T20:00:00.000+07:00",
        )


class TestStoppedAt:
    def test_phone_that_was_offline_states_when_it_stopped(self, client: Client, clock: SteppedClock):
        session = start(client).json
        clock.advance(minutes=70)
        stopped = stop(client, session["id"], stopped_at="2026-10-14T09:00:00+07:00").json
        assert stopped["ended_at"] == "2026-10-14T09:00:00.000+07:00"
        assert stopped["fee"] == session["fee"], "one hour, not two"

    def test_late_stop_counts_also_after_the_time_was_over(self, client: Client, clock: SteppedClock):
        session = start(client, minutes=120).json
        clock.advance(minutes=130)
        stopped = stop(client, session["id"], stopped_at="2026-10-14T09:59:00+07:00").json
        assert (stopped["state"], stopped["ended_at"]) == ("ended", "2026-10-14T09:59:00.000+07:00")

    @pytest.mark.parametrize(
        ("stopped_at", "code"),
        [
            ("2026-10-14T08:20:00.000001+07:00", "stopped_at_in_future"),
            ("2026-10-14T08:04:59.999999+07:00", "stopped_at_too_late"),
            ("2026-10-14T08:09:59.999999+07:00", "stopped_at_before_start"),
        ],
    )
    def test_impossible_stops_are_refused(self, client: Client, clock: SteppedClock, stopped_at: str, code: str):
        clock.at("2026-10-14T08:10:00")
        session = start(client).json
        clock.at("2026-10-14T08:20:00")
        answer = stop(client, session["id"], stopped_at=stopped_at)
        assert (answer.status_code, answer.json["code"]) == (409, code)
        assert find(client, session["id"]).json["state"] == "running"

    def test_repetition_has_the_first_answer_however_late_it_comes(self, client: Client, clock: SteppedClock):
        session, stopped_at = start(client).json, "2026-10-14T08:29:00.000500+07:00"
        clock.at("2026-10-14T08:30:00")
        first = stop(client, session["id"], key="k", stopped_at=stopped_at)
        assert first.status_code == 200
        clock.at("2026-10-15T08:45:00")
        assert stop(client, session["id"], key="k", stopped_at=stopped_at).json == first.json
        other = stop(client, session["id"], key="k", stopped_at="2026-10-14T08:29:00.001+07:00")
        assert (other.status_code, other.json["code"]) == (422, "idempotency_conflict")
        for key, role in ((None, "driver"), ("l", "driver"), ("k", "driver-2")):
            answer = stop(client, session["id"], key=key, role=role, stopped_at=stopped_at)
            assert (answer.status_code, answer.json["code"]) == (409, "stopped_at_too_late")

    def test_late_key_stops_nothing_that_runs(self, client: Client, clock: SteppedClock):
        session = start(client).json
        clock.advance(minutes=70)
        answer = stop(client, session["id"], key="k", stopped_at="2026-10-14T08:30:00+07:00")
        assert (answer.status_code, answer.json["code"]) == (409, "stopped_at_too_late")
        assert find(client, session["id"]).json["state"] == "running"

    def test_stop_after_the_end_of_prepaid_time_is_refused(self, client: Client, clock: SteppedClock):
        session = start(client, minutes=30).json
        clock.advance(minutes=30)
        assert stop(client, session["id"]).json["code"] == "session_expired"


class TestExtend:
    def test_open_session_has_nothing_to_extend(self, client: Client):
        assert extend(client, start(client).json["id"], 10).json["code"] == "not_prepaid"

    def test_maximum_stay_binds(self, client: Client):
        session = start(client, minutes=700).json
        assert extend(client, session["id"], 20).status_code == 200
        assert extend(client, session["id"], 1).json["code"] == "max_stay_exceeded"

    def test_expired_and_ended_sessions_are_refused(self, client: Client, clock: SteppedClock):
        session = start(client, minutes=10).json
        clock.advance(minutes=10)
        assert extend(client, session["id"], 10).json["code"] == "session_expired"
        other = start(client, "30A-999.99", minutes=10).json
        stop(client, other["id"])
        assert extend(client, other["id"], 10).json["code"] == "session_ended"

    def test_extended_session_lives_past_its_first_end(self, client: Client, clock: SteppedClock):
        session = start(client, minutes=30).json
        extend(client, session["id"], 30)
        clock.advance(minutes=45)
        assert find(client, session["id"]).json["state"] == "running" and occupied(client) == 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "status", "code"),
        [
            ({"plate": "00A-123.45"}, 422, "invalid_plate"),
            ({"plate": ""}, 422, "invalid_plate"),
            ({"vehicle_class": "large"}, 422, "class_not_served"),
            ({"vehicle_class": "bicycle"}, 422, "invalid_body"),
            ({"zone": "XX-999"}, 404, "unknown_zone"),
            ({"minutes": 721}, 409, "max_stay_exceeded"),
            ({"minutes": 0}, 422, "invalid_body"),
            ({"minutes": 1.5}, 422, "invalid_body"),
            ({"minutes": True}, 422, "invalid_body"),
            ({"minutes": "30"}, 422, "invalid_body"),
            ({"payment_method": "gold"}, 422, "invalid_body"),
            ({"plate": "30A\x0012345"}, 422, "invalid_body"),
            ({"plate": 5}, 422, "invalid_body"),
            ({"colour": "red"}, 422, "invalid_body"),
        ],
    )
    def test_bad_start_names_the_rule_and_leaves_nothing(
        self, client: Client, database_url: str, change: dict, status: int, code: str
    ):
        answer = client.post("/v1/sessions", json=body() | change, role="driver")
        assert (answer.status_code, answer.json["code"]) == (status, code)
        if code == "invalid_body":
            assert answer.json["errors"][0]["field"] == next(iter(change))
        with psycopg.connect(database_url) as connection:
            assert connection.execute("SELECT count(*) FROM active_session").fetchone() == (0,)

    def test_sessions_of_others_are_unknown(self, client: Client):
        session = start(client, role="driver-1").json
        assert client.get(f"/v1/sessions/{session['id']}", role="driver-2").status_code == 404
        assert stop(client, session["id"], role="driver-2").json["code"] == "not_found"
        assert client.get("/v1/sessions/ffffffff-ffff-7fff-bfff-ffffffffffff", role="driver").status_code == 404

    def test_roles_are_checked(self, client: Client):
        assert start(client, role="warden").json["code"] == "forbidden"
        answer = client.post("/v1/sessions", json=body())
        assert answer.json["code"] == "unauthorized" and answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_class_without_places_is_not_served(client: Client, resources: Resources):
    with owning(resources) as connection:
        query = "UPDATE zone_occupancy SET capacity = %s WHERE zone_code = 'HK-001' AND vehicle_class = 'motorbike'"
        connection.exec_driver_sql(query, (0,))
    try:
        resources.catalogue.refresh()
        answer = start(client, "29-AB 123.45", vehicle_class="motorbike")
        assert (answer.status_code, answer.json["code"]) == (422, "class_not_served")
    finally:
        with owning(resources) as connection:
            connection.exec_driver_sql(query, (40,))


def test_history_pages_newest_first(client: Client, clock: SteppedClock):
    ids = []
    for n in range(5):
        ids.append(start(client, f"30A-{n:03}.00", minutes=10 * (n + 1)).json["id"])
        clock.advance(seconds=1)
    first = client.get("/v1/sessions?limit=2", role="driver")
    assert [session["id"] for session in first.json["sessions"]] == ids[:2:-1]
    assert 'rel="next"' in first.headers["Link"]
    link = first.headers["Link"].split(";")[0].strip("<>")
    assert [session["id"] for session in client.get(link, role="driver").json["sessions"]] == ids[2:0:-1]
    clock.advance(minutes=25)
    stop(client, ids[4])
    assert [s["id"] for s in client.get("/v1/sessions?state=expired", role="driver").json["sessions"]] == ids[1::-1]
    assert [s["id"] for s in client.get("/v1/sessions?state=ended", role="driver").json["sessions"]] == [ids[4]]
    assert [s["id"] for s in client.get("/v1/sessions?state=running", role="driver").json["sessions"]] == [
        ids[3],
        ids[2],
    ]


def test_session_keeps_the_rate_it_started_under(client: Client, clock: SteppedClock, database_url: str):
    session = start(client).json
    assert session["rate_version"]
    clock.advance(minutes=30)
    assert find(client, session["id"]).json["rate_version"] == session["rate_version"]
