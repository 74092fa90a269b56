"""Plate checks over HTTP: what a warden's phone sees, second by second over each boundary."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import shapely
from flask import Flask
from shapely.geometry import shape

from app import jobs
from app.resources import Resources
from tests.conftest import Client, SteppedClock

ZONE, OTHER = "HK-001", "BD-001"
EIGHT = "2026-10-14T08:00:00+07:00"


def park(client: Client, plate: str = "30A-123.45", zone: str = ZONE, **more: object) -> dict:
    body = {"zone": zone, "plate": plate, "vehicle_class": "car", "payment_method": "wallet"} | more
    return client.post("/v1/sessions", json=body, role="driver").json


def check(client: Client, plate: str = "30A-123.45", *, role: str | None = "warden", key: str | None = None, **more):
    body = {"plate": plate, "zone": ZONE, "captured_at": EIGHT} | more
    sent = {name: value for name, value in body.items() if value != "left out"}
    return client.post("/v1/enforcement/checks", json=sent, role=role, key=key)


def verdict(client: Client, instant: str, **more: object) -> tuple:
    answer = check(client, captured_at=f"2026-10-14T{instant}+07:00", **more)
    assert answer.status_code == 201, answer.json
    return answer.json["verdict"], answer.json["expired_for_seconds"]


def centre(client: Client, zone: str) -> dict:
    geometry = client.get(f"/v1/zones/{zone}").json["geometry"]
    point = shapely.point_on_surface(shape(geometry))
    return {"lat": point.y, "lng": point.x, "accuracy": 5}


@pytest.fixture
def strict_zone(database_url: str) -> str:
    with psycopg.connect(database_url) as connection:
        query = "SELECT zone_code FROM zone_occupancy WHERE admission = 'strict' AND vehicle_class = 'car'"
        return connection.execute(query + " ORDER BY capacity, zone_code LIMIT 1").fetchone()[0]


def test_a_check_has_the_documented_form(client: Client):
    session = park(client)
    answer = check(client, "30a12345")
    assert answer.status_code == 201
    assert {name: value for name, value in answer.json.items() if name != "id"} == {
        "plate": "30A-123.45",
        "verdict": "paid",
        "reasons": ["session"],
        "zone": ZONE,
        "session": session["id"],
        "expired_for_seconds": None,
        "near_plates": [],
        "captured_at": "2026-10-14T08:00:00.000+07:00",
    }


def test_prepaid_session_second_by_second(client: Client, clock: SteppedClock):
    """
    08:00 |---- paid ----| 08:30 -- grace -- 08:35 -- expired
    """
    park(client, minutes=30)
    clock.advance(hours=2)
    assert verdict(client, "07:59:59.999") == ("unpaid", None)
    assert verdict(client, "08:00:00") == ("paid", None)
    assert verdict(client, "08:29:59.999") == ("paid", None)
    assert verdict(client, "08:30:00") == ("grace", 0)
    assert verdict(client, "08:34:59.999") == ("grace", 299)
    assert verdict(client, "08:35:00") == ("expired", 300)


def test_verdicts_are_the_same_before_and_after_the_tidy_job(client: Client, clock: SteppedClock, resources: Resources):
    park(client, minutes=30)
    clock.advance(hours=2)
    instants = ("07:59:59", "08:00:00", "08:29:59", "08:30:00", "08:35:00", "09:59:59")
    before = [verdict(client, instant) for instant in instants]
    assert jobs.close(resources) == 0 and jobs.release(resources) == 1 and jobs.close(resources) == 1
    assert [verdict(client, instant) for instant in instants] == before


def test_stopped_session_is_paid_until_it_was_stopped(client: Client, clock: SteppedClock):
    session = park(client)
    clock.at("2026-10-14T08:10")
    client.post(f"/v1/sessions/{session['id']}/stop", json={}, role="driver")
    clock.at("2026-10-14T08:20")
    assert verdict(client, "08:09:59.999") == ("paid", None)
    assert verdict(client, "08:10:00") == ("grace", 0)
    assert verdict(client, "08:15:00") == ("expired", 300)


def test_strict_overstay_is_expired_until_it_is_stopped(client: Client, clock: SteppedClock, strict_zone: str):
    session = park(client, zone=strict_zone, minutes=30)
    clock.at("2026-10-14T09:30")
    assert verdict(client, "08:29:59.999", zone=strict_zone) == ("paid", None)
    assert verdict(client, "09:30:00", zone=strict_zone) == ("expired", 3600)
    client.post(f"/v1/sessions/{session['id']}/stop", json={}, role="driver")
    assert verdict(client, "09:29:59", zone=strict_zone) == ("expired", 3599)
    assert verdict(client, "09:30:00", zone=strict_zone) == ("grace", 0)


def test_session_elsewhere_is_the_wrong_zone(client: Client):
    session = park(client, zone=OTHER)
    answer = check(client).json
    assert (answer["verdict"], answer["reasons"], answer["zone"]) == ("wrong_zone", ["other_zone"], ZONE)
    assert answer["session"] == session["id"]


def test_nobody_paid(client: Client):
    answer = check(client).json
    assert (answer["verdict"], answer["reasons"], answer["zone"]) == ("unpaid", ["no_session"], ZONE)
    assert answer["session"] is None and answer["expired_for_seconds"] is None


class TestPosition:
    def test_zone_under_the_position_is_found(self, client: Client):
        park(client)
        answer = check(client, zone=None, position=centre(client, ZONE)).json
        assert (answer["verdict"], answer["zone"]) == ("paid", ZONE)

    def test_session_in_any_zone_that_the_circle_touches_pays(self, client: Client, resources: Resources):
        here = centre(client, ZONE)
        near = resources.catalogue.places.near(here["lat"], here["lng"], 1_000)
        neighbour, metres = next((place.code, metres) for place, metres in near if metres > 50)
        park(client, zone=neighbour)
        answer = check(client, zone="left out", position=here | {"accuracy": metres + 1}).json
        assert (answer["verdict"], answer["zone"]) == ("paid", neighbour)
        answer = check(client, zone="left out", position=here | {"accuracy": metres - 1}).json
        assert (answer["verdict"], answer["zone"]) == ("wrong_zone", ZONE)

    def test_position_in_no_zone_is_outside(self, client: Client):
        park(client)
        answer = check(client, zone=None, position={"lat": 21.5, "lng": 105.5, "accuracy": 1_000}).json
        assert (answer["verdict"], answer["reasons"], answer["zone"]) == ("outside_zones", ["no_zone_here"], None)

    def test_stated_zone_goes_before_the_position(self, client: Client):
        park(client)
        answer = check(client, zone=ZONE, position=centre(client, OTHER)).json
        assert (answer["verdict"], answer["zone"]) == ("paid", ZONE)


class TestPlates:
    @pytest.mark.parametrize("plate", ["29MĐ112345", "29 mđ1 123.45", "29-MÐ1 123.45", "２９ＭĐ1-12345"])
    def test_stroke_is_kept_however_it_is_typed(self, client: Client, plate: str):
        park(client, "29-MĐ1 123.45", vehicle_class="motorbike")
        answer = check(client, plate).json
        assert (answer["verdict"], answer["plate"]) == ("paid", "29-MĐ1 123.45")

    def test_d_is_not_the_letter_with_a_stroke(self, client: Client):
        park(client, "29TĐ-123.45")
        assert check(client, "29TD-123.45").json["verdict"] == "unpaid", "a motorbike of 2023"
        assert check(client, "29TĐ-123.45").json["verdict"] == "paid"

    def test_class_tells_two_vehicles_of_one_text_apart(self, client: Client):
        park(client, "29E11234", vehicle_class="motorbike")
        assert check(client, "29E11234", vehicle_class="car").json["verdict"] == "unpaid"
        assert check(client, "29E11234", vehicle_class="motorbike").json["verdict"] == "paid"
        assert check(client, "29E11234").json["plate"] == "29-E1 1234", "both are looked at"

    @pytest.mark.parametrize(
        "plate", ["", "30O-123.45", "13A-123.45", "xe máy", "'; DROP TABLE zone; --", "30A-123.456"]
    )
    def test_invalid_plate_is_refused(self, client: Client, plate: str):
        answer = check(client, plate)
        assert (answer.status_code, answer.json["code"]) == (422, "invalid_plate")

    def test_large_vehicles_are_not_served(self, client: Client):
        answer = check(client, vehicle_class="large")
        assert (answer.status_code, answer.json["code"]) == (422, "class_not_served")


class TestRefusals:
    @pytest.mark.parametrize("role", ["driver", "planner", "operator", "device"])
    def test_only_wardens_check(self, client: Client, role: str):
        answer = check(client, role=role)
        assert (answer.status_code, answer.json["code"]) == (403, "forbidden")

    def test_nobody_checks_without_a_key(self, client: Client):
        assert check(client, role=None).status_code == 401

    def test_unknown_zone(self, client: Client):
        answer = check(client, zone="XX-999")
        assert (answer.status_code, answer.json["code"]) == (404, "unknown_zone")

    @pytest.mark.parametrize("nothing", [None, "left out"])
    def test_neither_zone_nor_position_names_both(self, client: Client, nothing: str | None):
        answer = check(client, zone=nothing, position=nothing)
        assert (answer.status_code, answer.json["code"]) == (422, "invalid_body")
        assert {error["field"] for error in answer.json["errors"]} == {"zone", "position"}

    @pytest.mark.parametrize(
        ("position", "field"),
        [
            ({"lat": 500, "lng": 105, "accuracy": 5}, "position.lat"),
            ({"lat": 21, "lng": -500, "accuracy": 5}, "position.lng"),
            ({"lat": 21, "lng": 105, "accuracy": -1}, "position.accuracy"),
            ({"lat": 21, "lng": 105, "accuracy": 1_001}, "position.accuracy"),
            ({"lat": 21, "lng": 105}, "position.accuracy"),
            ({"lat": "21", "lng": 105, "accuracy": 5}, "position.lat"),
            ({"lat": True, "lng": 105, "accuracy": 5}, "position.lat"),
            ({"lat": None, "lng": 105, "accuracy": 5}, "position.lat"),
            ({"lat": 21, "lng": 105, "accuracy": 5, "alt": 5}, "position.alt"),
            ([21, 105], "position"),
        ],
    )
    def test_bad_position_is_named(self, client: Client, position: object, field: str):
        answer = check(client, zone=None, position=position)
        assert (answer.status_code, answer.json["code"]) == (422, "invalid_body")
        assert field in {error["field"] for error in answer.json["errors"]}, answer.json

    @pytest.mark.parametrize("captured_at", [None, "", "2026-10-14", "2026-10-14T08:00:00", "0001-01-01T00:00:00Z", 7])
    def test_bad_instant_is_named(self, client: Client, captured_at: object):
        answer = check(client, captured_at=captured_at)
        assert answer.status_code == 422 and answer.json["errors"][0]["field"] == "captured_at"

    def test_capture_in_the_future_but_for_the_clocks_skew(self, client: Client):
        assert check(client, captured_at="2026-10-14T08:00:10+07:00").status_code == 201
        answer = check(client, captured_at="2026-10-14T08:00:10.000001+07:00")
        assert (answer.status_code, answer.json["code"]) == (409, "captured_at_in_future")

    def test_capture_a_day_ago_comes_too_late(self, client: Client):
        assert check(client, captured_at="2026-10-13T08:00:00.000001+07:00").status_code == 201
        answer = check(client, captured_at="2026-10-13T08:00:00+07:00")
        assert (answer.status_code, answer.json["code"]) == (409, "captured_at_too_late")


class TestIdempotency:
    def test_same_key_and_body_get_the_first_answer_and_one_row(self, client: Client, database_url: str):
        first = check(client, key="k")
        park(client)
        again = check(client, key="k")
        assert (again.status_code, again.data) == (201, first.data)
        with psycopg.connect(database_url) as connection:
            assert connection.execute("SELECT count(*) FROM parking_check").fetchone() == (1,)

    def test_same_key_with_another_body_is_a_conflict(self, client: Client):
        check(client, key="k")
        answer = check(client, "30A-999.99", key="k")
        assert (answer.status_code, answer.json["code"]) == (422, "idempotency_conflict")

    def test_first_answer_comes_again_when_the_body_would_be_refused_by_now(self, client: Client, clock: SteppedClock):
        first = check(client, key="k")
        clock.advance(hours=23)
        late = EIGHT.replace("08:00", "07:00")
        clock.at("2026-10-15T06:30")
        second = check(client, key="late", captured_at=late)
        clock.at("2026-10-15T07:30")
        assert check(client, captured_at=late).json["code"] == "captured_at_too_late"
        assert check(client, key="late", captured_at=late).json == second.json
        assert check(client, key="k").json == first.json

    def test_key_is_free_again_after_a_day(self, client: Client, clock: SteppedClock, database_url: str):
        first = check(client, key="k")
        clock.advance(hours=24)
        again = check(client, key="k", captured_at="2026-10-15T08:00:00+07:00")
        assert again.status_code == 201 and again.json["id"] != first.json["id"]
        with psycopg.connect(database_url) as connection:
            assert connection.execute("SELECT count(*) FROM parking_check").fetchone() == (2,)

    def test_same_key_many_times_at_once_is_one_check(self, app: Flask, database_url: str):
        app.test_client_class = Client
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: check(app.test_client(), key="k").json["id"], range(24)))
        assert len(set(answers)) == 1
        with psycopg.connect(database_url) as connection:
            assert connection.execute("SELECT count(*) FROM parking_check").fetchone() == (1,)

    def test_refused_check_is_not_remembered(self, client: Client):
        assert check(client, key="k", zone="XX-999").status_code == 404
        assert check(client, key="k").status_code == 201
