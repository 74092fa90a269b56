"""Reports over HTTP: what planners see equals counting by hand what drivers were answered."""

import csv
import io
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import product
from typing import Any, NamedTuple

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app import jobs
from app.resources import Resources
from tests.conftest import HANOI, Client, SteppedClock

ZONE = "HK-001"
DAY = {"from": "2026-10-14T00:00:00+07:00", "to": "2026-10-15T00:00:00+07:00", "bucket": "1d"}
REPORTS = ("occupancy", "revenue")
USED = ("HK-001", "HK-002", "BD-001")
MINUTE = timedelta(minutes=1)


def park(client: Client, plate: str = "30A-123.45", zone: str = ZONE, **more: object) -> dict:
    body = {"zone": zone, "plate": plate, "vehicle_class": "car", "payment_method": "wallet"} | more
    return client.post("/v1/sessions", json=body, role="driver").json


def stop(client: Client, session: dict) -> dict:
    return client.post(f"/v1/sessions/{session['id']}/stop", json={}, role="driver").json


def ask(client: Client, report: str = "occupancy", *, role: str | None = "planner", accept: str | None = None, **more):
    headers = {"Accept": accept} if accept else {}
    parameters = {name: value for name, value in (DAY | more).items() if value is not None}
    return client.get(f"/v1/reports/{report}", query_string=parameters, role=role, headers=headers)


def rows(client: Client, report: str = "occupancy", **more: object) -> list[dict]:
    answer = ask(client, report, **more)
    assert answer.status_code == 200, answer.json
    return answer.json["rows"]


def span(start: str, end: str) -> dict[str, str]:
    return {"from": f"{start}+07:00", "to": f"{end}+07:00"}


@pytest.fixture
def strict_zone(database_url: str) -> str:
    with psycopg.connect(database_url) as connection:
        query = "SELECT zone_code FROM zone_occupancy WHERE admission = 'strict' AND vehicle_class = 'car'"
        return connection.execute(query + " ORDER BY capacity, zone_code LIMIT 1").fetchone()[0]


def test_rows_have_the_documented_form(client: Client, clock: SteppedClock):
    session = park(client)
    clock.advance(minutes=90)
    fee = stop(client, session)["fee"]
    clock.at("2026-10-15T00:15")
    capacity = client.get(f"/v1/zones/{ZONE}").json["properties"]["capacity"]["car"]
    answer = ask(client, zone=ZONE, vehicle_class="car").json
    row = {
        "district": "002",
        "zone": ZONE,
        "vehicle_class": "car",
        "from": "2026-10-14T00:00:00.000+07:00",
        "to": "2026-10-15T00:00:00.000+07:00",
        "complete": True,
    }
    assert answer == {
        "source": "sessions",
        "capacity_sources": ["illustrative"],
        "as_of": "2026-10-15T00:15:00.000+07:00",
        "archived_months": [],
        "rows": [
            row
            | {
                "occupied_minutes": 90,
                "capacity_minutes": capacity * 1440,
                "occupancy": round(90 / (capacity * 1440), 6),
                "peak_occupied": 1,
                "arrivals": 1,
                "departures": 1,
            }
        ],
    }
    assert rows(client, "revenue", zone=ZONE, vehicle_class="car") == [
        row | {"sessions": 1, "revenue": fee, "refunded": fee | {"amount": 0}, "net": fee}
    ]


def test_district_rows_sum_up_their_zones(client: Client, clock: SteppedClock):
    for n, zone in enumerate(("HK-001", "HK-002", "HK-002")):
        park(client, f"30A-{n:03}.00", zone)
    clock.advance(minutes=30)
    zones = rows(client, district="002", vehicle_class="car")
    (district,) = rows(client, district="002", vehicle_class="car", by="district")
    assert district["zone"] is None and district["peak_occupied"] == district["arrivals"] == 3
    assert district["occupied_minutes"] == sum(row["occupied_minutes"] for row in zones) == 90
    assert district["capacity_minutes"] == sum(row["capacity_minutes"] for row in zones)


def test_every_zone_and_class_has_a_row_where_nothing_happened(client: Client, resources: Resources):
    cells = {(row["zone"], row["vehicle_class"]) for row in rows(client)}
    assert cells == {(place.code, each) for place in resources.catalogue.places.all for each in place.capacity}
    assert {row["district"] for row in rows(client, by="district")} == {
        area.code for area in resources.catalogue.places.districts
    }


def test_vehicle_that_stands_counts_until_now(client: Client, clock: SteppedClock):
    park(client)
    clock.advance(minutes=20)
    wanted = span("2026-10-14T08:00:00", "2026-10-14T08:45:00") | {
        "bucket": "15m",
        "zone": ZONE,
        "vehicle_class": "car",
    }
    found = rows(client, **wanted)
    assert [row["occupied_minutes"] for row in found] == [15, 5, 0]
    assert [row["peak_occupied"] for row in found] == [1, 1, 0]
    assert [row["occupancy"] is None for row in found] == [False, False, True], "the last has not begun"
    assert [row["complete"] for row in found] == [False, False, False]


def test_vehicle_that_arrives_at_this_very_instant_is_seen(client: Client):
    park(client)
    wanted = span("2026-10-14T08:00:00", "2026-10-14T08:15:00") | {
        "bucket": "15m",
        "zone": ZONE,
        "vehicle_class": "car",
    }
    (row,) = rows(client, **wanted)
    assert (row["arrivals"], row["peak_occupied"], row["occupied_minutes"]) == (1, 1, 0)


def test_figures_are_the_same_before_and_after_the_tidy_job(
    client: Client, clock: SteppedClock, resources: Resources, strict_zone: str
):
    park(client, minutes=30)
    park(client, "30A-999.99", strict_zone, minutes=30)
    clock.advance(hours=1)
    wanted = span("2026-10-14T08:00:00", "2026-10-14T09:00:00") | {"bucket": "15m"}

    def figures() -> list:
        return [row for report in REPORTS for row in rows(client, report, **wanted)]

    before = figures()
    jobs.release(resources)
    assert figures() == before
    assert jobs.close(resources) == 1
    assert figures() == before
    overstay = [row["occupied_minutes"] for row in rows(client, zone=strict_zone, vehicle_class="car", **wanted)]
    advisory = [row["occupied_minutes"] for row in rows(client, zone=ZONE, vehicle_class="car", **wanted)]
    assert (advisory, overstay) == ([15, 15, 0, 0], [15, 15, 15, 15])


def test_strict_overstay_is_charged_when_it_is_stopped(client: Client, clock: SteppedClock, strict_zone: str):
    session = park(client, zone=strict_zone, minutes=30)
    clock.advance(hours=3)
    wanted = {"zone": strict_zone, "vehicle_class": "car", "bucket": "1h"}
    assert sum(row["sessions"] for row in rows(client, "revenue", **wanted)) == 0
    fee = stop(client, session)["fee"]["amount"]
    charged = [
        (row["from"][11:16], row["revenue"]["amount"]) for row in rows(client, "revenue", **wanted) if row["sessions"]
    ]
    assert charged == [("11:00", fee)]


class Action(NamedTuple):
    """Wait some minutes, then start in a zone (minutes: prepaid), or stop whoever is there."""

    wait: int
    plate: int
    zone: str
    minutes: int | None


ACTIONS = st.lists(
    st.builds(
        Action,
        st.integers(0, 50),
        st.integers(0, 3),
        st.sampled_from(USED),
        st.sampled_from([None, 7, 30, 61]),
    ),
    max_size=25,
)


def replay(client: Client, clock: SteppedClock, actions: list[Action]) -> list[dict]:
    """Drive the service; the sessions as drivers see them in the end."""
    ids: dict[str, dict] = {}
    running: dict[int, dict] = {}
    for action in actions:
        clock.advance(minutes=action.wait)
        if action.plate in running and action.minutes is None:
            stop(client, running.pop(action.plate))
            continue
        session = park(client, f"30A-00{action.plate}.00", action.zone, minutes=action.minutes)
        assert "id" in session or session["code"] == "already_parked", session
        if "id" in session:
            running[action.plate] = ids[session["id"]] = session
    clock.advance(minutes=13)
    return [client.get(f"/v1/sessions/{session_id}", role="driver").json for session_id in ids]


def minutes_of(row: dict) -> Iterator[datetime]:
    minute, end = datetime.fromisoformat(row["from"]), datetime.fromisoformat(row["to"])
    while minute < end:
        yield minute
        minute += MINUTE


def count(row: dict, sessions: list[dict], now: datetime) -> dict[str, Any]:
    """What a row must say, from looking at each of its minutes."""
    start, end = datetime.fromisoformat(row["from"]), datetime.fromisoformat(row["to"])
    stays = [
        (datetime.fromisoformat(s["started_at"]), s["ended_at"] and datetime.fromisoformat(s["ended_at"]), s["fee"])
        for s in sessions
        if row["vehicle_class"] == s["vehicle_class"] and row["zone"] == s["zone"]
    ]
    standing = [
        sum(begun <= minute and (gone is None or minute < gone) for begun, gone, _ in stays)
        for minute in minutes_of(row)
        if minute <= now
    ]
    charged = [fee["amount"] for _, gone, fee in stays if gone is not None and start <= gone < end]
    return {
        "occupied_minutes": sum(standing) - (standing[-1] if start <= now < end else 0),
        "peak_occupied": max(standing, default=0),
        "arrivals": sum(start <= begun < end for begun, _, _ in stays),
        "departures": len(charged),
        "sessions": len(charged),
        "revenue": {"amount": sum(charged), "currency": "VND"},
        "refunded": {"amount": 0, "currency": "VND"},
        "net": {"amount": sum(charged), "currency": "VND"},
    }


def clear(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("TRUNCATE active_session, parking_session")
        connection.execute("UPDATE zone_occupancy SET occupied = 0, next_over = NULL WHERE occupied <> 0")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS, start=st.sampled_from(["2026-10-14T05:40", "2026-10-31T22:00", "2028-02-29T20:00"]))
def test_reports_equal_counting_what_drivers_were_answered(client, clock, resources, database_url, actions, start):
    """Around 06:00, and over midnight at the end of a month, of which one has a leap day."""
    clear(database_url)
    clock.at(start)
    begun = clock.now().astimezone(HANOI)
    sessions = replay(client, clock, actions)
    wanted = {"from": begun.isoformat(), "to": (begun + timedelta(hours=24)).isoformat(), "bucket": "1h"}
    for report, zone in product(REPORTS, USED):
        found = rows(client, report, zone=zone, vehicle_class="car", **wanted)
        assert len(found) == 24 + (begun.minute > 0)
        for row in found:
            expected = count(row, sessions, clock.now())
            assert {name: row[name] for name in row if name in expected} == {
                name: expected[name] for name in expected if name in row
            }, row


class TestBuckets:
    def test_days_and_hours_are_hanois(self, client: Client, clock: SteppedClock):
        clock.at("2026-10-31T23:30")
        session = park(client)
        clock.at("2026-11-01T00:45")
        stop(client, session)
        wanted = {"zone": ZONE, "vehicle_class": "car"}
        days = rows(client, **span("2026-10-31T00:00:00", "2026-11-02T00:00:00"), **wanted)
        assert [(row["from"][:10], row["occupied_minutes"]) for row in days] == [("2026-10-31", 30), ("2026-11-01", 45)]
        utc = {"from": "2026-10-31T16:00:00Z", "to": "2026-10-31T18:00:00Z", "bucket": "1h"}
        assert [row["occupied_minutes"] for row in rows(client, **utc, **wanted)] == [30, 45]

    def test_first_and_last_are_cut_to_the_span(self, client: Client):
        wanted = span("2026-10-14T07:10:00", "2026-10-14T07:31:00") | {"bucket": "15m"}
        found = rows(client, zone=ZONE, vehicle_class="car", **wanted)
        assert [(row["from"][11:16], row["to"][11:16]) for row in found] == [
            ("07:10", "07:15"),
            ("07:15", "07:30"),
            ("07:30", "07:31"),
        ]
        capacity = found[1]["capacity_minutes"] / 15
        assert [row["capacity_minutes"] for row in found] == [5 * capacity, 15 * capacity, capacity]


class TestPages:
    @pytest.mark.parametrize("report", REPORTS)
    def test_links_lead_through_the_whole_report_once(self, client: Client, report: str):
        wanted = span("2026-10-14T07:50:00", "2026-10-14T08:20:00") | {"bucket": "15m", "district": "002"}
        whole = rows(client, report, **wanted)
        answer, found = ask(client, report, limit=17, **wanted), []
        while True:
            assert len(answer.json["rows"]) <= 17
            found += answer.json["rows"]
            link = re.fullmatch(r'<(.*)>; rel="next"', answer.headers.get("Link", ""))
            if link is None:
                break
            answer = client.get(link[1], role="planner")
        assert found == whole and "Link" not in ask(client, report, **wanted).headers

    @pytest.mark.parametrize(
        "cursor", ["", "x", "1,2,3", "2026-10-14T08:00:00+07:00", "2026-10-14T08:00:00+07:00,HK-001"]
    )
    def test_bad_cursor_is_named(self, client: Client, cursor: str):
        answer = ask(client, cursor=cursor)
        assert answer.status_code == 400 and answer.json["errors"][0]["field"] == "cursor"

    def test_forged_cursor_finds_nothing_that_is_not_in_the_report(self, client: Client):
        assert ask(client, cursor="1999-12-31T23:59:59Z,HK-001,car").status_code == 400
        assert rows(client, cursor="2099-01-01T00:00:00Z,HK-001,car") == []
        assert rows(client, cursor="2026-01-01T00:00:00Z,\x00,", limit=1) == rows(client, limit=1)


class TestCsv:
    def test_columns_and_values_are_those_of_json(self, client: Client, clock: SteppedClock):
        session = park(client)
        clock.advance(minutes=90)
        stop(client, session)
        for report in REPORTS:
            answer = ask(client, report, accept="text/csv", district="002")
            assert answer.content_type == "text/csv; charset=utf-8" and answer.headers["Vary"] == "Accept"
            table = list(csv.DictReader(io.StringIO(answer.text)))
            for line, row in zip(table, rows(client, report, district="002"), strict=True):
                for amount in ("revenue", "refunded", "net"):
                    row |= {f"{amount}_{name}": value for name, value in row.pop(amount, {}).items()}
                assert line == {
                    name: "" if v is None else str(v).replace("True", "true").replace("False", "false")
                    for name, v in row.items()
                }

    def test_header_stands_also_over_no_rows(self, client: Client):
        answer = ask(client, accept="text/csv", zone=ZONE, district="001")
        assert answer.text == (
            "district,zone,vehicle_class,from,to,complete,occupied_minutes,capacity_minutes,occupancy,"
            "peak_occupied,arrivals,departures\r\n"
        )
        answer = ask(client, "revenue", accept="text/csv", zone=ZONE, district="001")
        assert answer.text == (
            "district,zone,vehicle_class,from,to,complete,sessions,revenue_amount,revenue_currency,"
            "refunded_amount,refunded_currency,net_amount,net_currency\r\n"
        )

    def test_pages_are_linked(self, client: Client):
        assert 'rel="next"' in ask(client, accept="text/csv", limit=1).headers["Link"]

    @pytest.mark.parametrize("accept", ["*/*", "application/json", "text/html", "application/json, text/csv"])
    def test_json_is_the_default(self, client: Client, accept: str):
        assert ask(client, accept=accept).content_type == "application/json"

    def test_code_that_looks_like_a_formula_stays_a_text(self, client: Client, database_url: str):
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("UPDATE zone SET district_code = '-2+3' WHERE code = %s", [ZONE])
            try:
                answer = ask(client, accept="text/csv", zone=ZONE, vehicle_class="car")
            finally:
                connection.execute("UPDATE zone SET district_code = '002' WHERE code = %s", [ZONE])
        assert answer.text.splitlines()[1].startswith("'-2+3,HK-001,")


class TestRefusals:
    @pytest.mark.parametrize("report", REPORTS)
    def test_only_planners_and_operators_read(self, client: Client, report: str):
        for role in ("driver", "warden", "device"):
            answer = ask(client, report, role=role)
            assert (answer.status_code, answer.json["code"]) == (403, "forbidden")
        assert ask(client, report, role=None).status_code == 401
        assert ask(client, report, role="operator").status_code == 200

    @pytest.mark.parametrize("report", REPORTS)
    @pytest.mark.parametrize(
        ("parameters", "field"),
        [
            ({"from": None}, "from"),
            ({"to": None}, "to"),
            ({"bucket": None}, "bucket"),
            ({"bucket": "2h"}, "bucket"),
            ({"from": "2026-10-14"}, "from"),
            ({"from": "2026-10-14T00:00:00"}, "from"),
            ({"from": "0001-01-01T00:00:00Z"}, "from"),
            ({"to": "2999-01-01T00:00:00Z"}, "to"),
            ({"to": DAY["from"]}, "to"),
            ({"to": "2026-10-13T00:00:00+07:00"}, "to"),
            ({"bucket": "15m", "to": "2026-11-14T00:00:00.001+07:00"}, "to"),
            ({"bucket": "1h", "to": "2026-11-14T00:00:00.001+07:00"}, "to"),
            ({"bucket": "1d", "to": "2027-10-15T00:00:00.001+07:00"}, "to"),
            ({"vehicle_class": "large"}, "vehicle_class"),
            ({"vehicle_class": "bus"}, "vehicle_class"),
            ({"by": "ward"}, "by"),
            ({"limit": "0"}, "limit"),
            ({"limit": "10001"}, "limit"),
            ({"limit": "many"}, "limit"),
            ({"zone": "\x00"}, "zone"),
            ({"district": ""}, "district"),
            ({"colour": "red"}, "colour"),
        ],
    )
    def test_bad_parameter_is_named(self, client: Client, report: str, parameters: dict, field: str):
        answer = ask(client, report, **parameters)
        assert (answer.status_code, answer.json["code"]) == (400, "invalid_parameter")
        assert [error["field"] for error in answer.json["errors"]] == [field]

    def test_longest_spans_are_answered(self, client: Client):
        for bucket, end in (("15m", "2026-11-14"), ("1h", "2026-11-14"), ("1d", "2027-10-15")):
            assert ask(client, bucket=bucket, to=f"{end}T00:00:00+07:00", zone=ZONE).status_code == 200

    def test_unknown_zone_and_district(self, client: Client):
        answer = ask(client, zone="XX-999")
        assert (answer.status_code, answer.json["code"]) == (404, "unknown_zone")
        answer = ask(client, "revenue", district="999")
        assert (answer.status_code, answer.json["code"]) == (404, "not_found")

    def test_plus_of_an_offset_may_be_left_unescaped(self, client: Client):
        path = "/v1/reports/revenue?from=2026-10-14T00:00:00+07:00&to=2026-10-15T00:00:00+07:00&bucket=1d"
        answer = client.get(f"{path}&limit=1", role="planner")
        assert answer.status_code == 200
        link = re.fullmatch(r'<(.*)>; rel="next"', answer.headers["Link"])[1]
        assert client.get(link, role="planner").status_code == 200
