"""Permits over HTTP: granted, found, revoked; and what they do for a driver and a warden, to the millisecond."""

from typing import Any

import psycopg
import pytest
from flask import Flask

from app import create_app, jobs
from app.commands.ledger import SESSIONS
from app.fast_path import FastPath
from app.resources import Resources
from billing.check import check
from tests.app.test_quotes import set_free_minutes
from tests.app.test_races import apps, together
from tests.app.test_refunds import acts
from tests.app.test_wallet import booked, wallet
from tests.conftest import FUNDS, Client, SteppedClock

__all__ = ["apps"]
ZONE, OTHER = "HK-001", "BD-001"  # restricted: 30,000 for each of the first two hours; and core
PLATE = "30A-123.45"
PERMITS = "/v1/admin/permits"
NOTHING = {"amount": 0, "currency": "VND"}


def grant(client: Client, key: str | None = None, role: str = "operator", **changes: Any) -> Any:
    body = {
        "kind": "resident", "plate": PLATE, "vehicle_class": "car", "zone": ZONE, "reason": "hộ khẩu ở phố này",
        "valid_from": "2026-10-14T08:00:00+07:00", "valid_until": "2026-10-14T10:00:00+07:00",
    } | changes  # fmt: skip
    return client.post(PERMITS, json=body, role=role, key=key)


def revoke(client: Client, permit: dict, reason: object = "chuyển nhà", role: str = "operator") -> Any:
    return client.delete(f"{PERMITS}/{permit['id']}", json={"reason": reason}, role=role)


def park(client: Client, key: str | None = None, **changes: Any) -> Any:
    body = {"zone": ZONE, "plate": PLATE, "vehicle_class": "car", "payment_method": "free"} | changes
    return client.post("/v1/sessions", json=body, role="driver", key=key)


def act(client: Client, session: dict, verb: str = "stop", **body: Any) -> Any:
    return client.post(f"/v1/sessions/{session['id']}/{verb}", json=body, role="driver")


def find(client: Client, session: dict) -> Any:
    return client.get(f"/v1/sessions/{session['id']}", role="driver").json


@pytest.fixture
def strict_zone(database_url: str) -> str:
    with psycopg.connect(database_url) as connection:
        query = """SELECT o.zone_code FROM zone_occupancy o JOIN zone z ON z.code = o.zone_code AND z.valid_to IS NULL
            WHERE o.admission = 'strict' AND o.vehicle_class = 'car' AND z.rate_area = 'core'"""
        return connection.execute(query + " ORDER BY o.zone_code LIMIT 1").fetchone()[0]


class TestInterface:
    def test_a_permit_has_the_documented_form(self, client: Client, database_url: str):
        made = grant(client, plate="30a12345", reference="GP-1")
        assert made.status_code == 201
        assert {name: value for name, value in made.json.items() if name != "id"} == {
            "kind": "resident", "plate": PLATE, "vehicle_class": "car", "zone": ZONE, "district": None,
            "valid_from": "2026-10-14T08:00:00.000+07:00", "valid_until": "2026-10-14T10:00:00.000+07:00",
            "state": "valid", "reference": "GP-1", "reason": "hộ khẩu ở phố này",
            "granted_at": "2026-10-14T08:00:00.000+07:00", "granted_by": "operator",
            "revoked_at": None, "revoked_by": None, "revocation": None,
        }  # fmt: skip
        assert client.get(f"{PERMITS}/{made.json['id']}", role="operator").json == made.json
        assert acts(database_url) == [("operator", "permit.grant", made.json["id"])]

    def test_a_revoked_permit_stays_to_be_seen_and_is_revoked_once(
        self, client: Client, clock: SteppedClock, database_url: str
    ):
        permit = grant(client).json
        clock.advance(minutes=1)
        first = revoke(client, permit)
        assert (first.status_code, first.json["state"], first.json["revocation"]) == (200, "revoked", "chuyển nhà")
        assert first.json["revoked_at"] == "2026-10-14T08:01:00.000+07:00"
        clock.advance(minutes=1)
        assert revoke(client, permit, "lý do khác").json == first.json
        assert client.get(f"{PERMITS}/{permit['id']}", role="operator").json == first.json
        assert [action for _, action, _ in acts(database_url)] == ["permit.grant", "permit.revoke"]

    @pytest.mark.parametrize(
        ("changes", "status", "code", "field"),
        [
            ({"kind": "friend"}, 422, "invalid_body", "kind"),
            ({"district": "002"}, 422, "invalid_body", "district"),
            ({"valid_until": "2026-10-14T08:00:00+07:00"}, 422, "invalid_body", "valid_until"),
            ({"valid_until": "2026-10-14T09:00:00"}, 422, "invalid_body", "valid_until"),
            ({"reason": " "}, 422, "invalid_body", "reason"),
            ({"reason": None}, 422, "invalid_body", "reason"),
            ({"reference": ""}, 422, "invalid_body", "reference"),
            ({"plate": None}, 422, "invalid_body", "plate"),
            ({"more": 1}, 422, "invalid_body", "more"),
            ({"plate": "30O-123.45"}, 422, "invalid_plate", None),
            ({"vehicle_class": "motorbike"}, 422, "invalid_plate", None),
            ({"vehicle_class": "large"}, 422, "class_not_served", None),
            ({"zone": "XX-1"}, 404, "unknown_zone", None),
            ({"zone": None, "district": "999"}, 404, "not_found", None),
        ],
    )
    def test_bad_input_is_named_and_leaves_nothing(
        self, client: Client, database_url: str, changes: dict, status: int, code: str, field: str | None
    ):
        refused = grant(client, **changes)
        assert (refused.status_code, refused.json["code"]) == (status, code), refused.json
        assert field is None or field in {error["field"] for error in refused.json["errors"]}
        assert client.get(PERMITS, role="operator").json == {"permits": []} and acts(database_url) == []

    @pytest.mark.parametrize("role", ["driver", "warden", "attendant", "planner", "device"])
    def test_permits_are_for_operators(self, client: Client, role: str):
        permit = grant(client).json
        path = f"{PERMITS}/{permit['id']}"
        answers = [grant(client, role=role), revoke(client, permit, role=role)]
        answers += [client.get(each, role=role) for each in (PERMITS, path)]
        assert {answer.status_code for answer in answers} == {403}
        assert client.get(path).status_code == 401

    def test_what_does_not_exist_or_is_over(self, client: Client, clock: SteppedClock):
        permit = grant(client).json
        for wrong, status in (("x", 400), ("0199e7a0-0000-7000-8000-000000000001", 404)):
            assert client.get(f"{PERMITS}/{wrong}", role="operator").status_code == status
            assert revoke(client, {"id": wrong}).status_code == status
        clock.at("2026-10-14T10:00")
        assert revoke(client, permit).json["code"] == "permit_over"
        assert revoke(client, permit, None).status_code == 422

    def test_the_same_permit_twice_is_refused_and_a_key_repeats_the_first_answer(self, client: Client):
        first = grant(client, key="k")
        assert grant(client, key="k").data == first.data
        assert grant(client).json["code"] == "already_granted"
        assert grant(client, key="k", kind="event").json["code"] == "idempotency_conflict"
        assert len(client.get(PERMITS, role="operator").json["permits"]) == 1

    def test_two_operators_at_once_grant_and_revoke_once(self, apps: list[Flask], database_url: str):
        clients: list[Any] = [app.test_client() for app in apps]
        granted = together(*(lambda each=each: grant(each) for each in clients))
        assert sorted(answer.status_code for answer in granted) == [201, 409]
        permit = next(answer.json for answer in granted if answer.status_code == 201)
        revoked = together(
            *(lambda each=each, n=n: revoke(each, permit, f"lý do {n}") for n, each in enumerate(clients))
        )
        assert revoked[0].json == revoked[1].json and revoked[0].json["state"] == "revoked"
        assert [action for _, action, _ in acts(database_url)] == ["permit.grant", "permit.revoke"]

    def test_permits_are_found_by_plate_place_and_state_page_by_page(self, client: Client, clock: SteppedClock):
        made = [grant(client, plate="29E11234", vehicle_class="motorbike", zone=None).json["id"]]
        for hour in range(3):
            clock.advance(seconds=1)
            until = f"2026-10-14T{10 + hour}:00:00+07:00"
            made.append(grant(client, district="002", zone=None, kind=("resident", "event", "official")[hour],
                              valid_until=until).json["id"])  # fmt: skip

        def found(query: str) -> list[str]:
            return [permit["id"] for permit in client.get(f"{PERMITS}?{query}", role="operator").json["permits"]]

        assert found("plate=29e11234") == made[:1] and found(f"plate={PLATE}") == made[:0:-1]
        assert found("district=002&state=valid") == made[:0:-1] and found("zone=HK-001") == []
        clock.at("2026-10-14T10:00")
        assert found("state=over") == made[1::-1]
        first = client.get(f"{PERMITS}?plate=30A12345&limit=2", role="operator")
        assert [permit["id"] for permit in first.json["permits"]] == made[:1:-1]
        link = first.headers["Link"].partition(">")[0].lstrip("<")
        assert [permit["id"] for permit in client.get(link, role="operator").json["permits"]] == made[1:2]
        for wrong in ("plate=xe", "plate=13A-123.45", "state=lost", "limit=0", "cursor=x", "more=1"):
            refused = client.get(f"{PERMITS}?{wrong}", role="operator")
            assert (refused.status_code, refused.json["errors"][0]["field"]) == (400, wrong.partition("=")[0])


class TestSession:
    def test_a_stay_within_the_right_costs_nothing(self, client: Client, clock: SteppedClock, database_url: str):
        assert park(client).json["code"] == "not_free"
        grant(client)
        session = park(client, minutes=120)
        assert (session.status_code, session.json["fee"], session.json["payment_method"]) == (201, NOTHING, "free")
        assert wallet(client)["held"] == 0
        clock.at("2026-10-14T09:30")
        assert find(client, session.json)["fee"] == NOTHING
        stopped = act(client, session.json)
        assert (stopped.json["state"], stopped.json["fee"]) == ("ended", NOTHING)
        assert wallet(client) == {"balance": FUNDS, "held": 0, "available": FUNDS, "owed": 0}
        assert set(booked(database_url)) == {"funding", "wallet/driver", *(f"wallet/driver-{n}" for n in range(1, 9))}
        assert client.get(f"/v1/sessions/{session.json['id']}/receipt", role="driver").status_code == 404
        with psycopg.connect(database_url) as books:
            assert [proof for proof in check(books, SESSIONS) if proof.wrong] == []

    def test_a_right_for_a_part_of_the_stay_is_refused_with_its_end(self, client: Client):
        grant(client)
        refused = park(client, minutes=121)
        assert (refused.status_code, refused.json["code"]) == (409, "not_free")
        assert "2026-10-14T10:00:00.000+07:00" in refused.json["detail"]
        assert park(client, minutes=120).status_code == 201

    @pytest.mark.parametrize(
        ("instant", "status"), [("07:59:59.999", 409), ("08:00", 201), ("09:59:59.999", 201), ("10:00", 409)]
    )
    def test_a_right_serves_from_its_begin_until_before_its_end(
        self, client: Client, clock: SteppedClock, instant: str, status: int
    ):
        grant(client)
        clock.at(f"2026-10-14T{instant}")
        assert park(client).status_code == status

    def test_a_stay_over_midnight_into_the_next_permit_is_covered(self, client: Client, clock: SteppedClock):
        year = {"valid_from": "2026-01-01T00:00:00+07:00", "valid_until": "2027-01-01T00:00:00+07:00"}
        grant(client, **year)
        clock.at("2026-12-31T23:00")
        assert park(client, minutes=61).json["code"] == "not_free"
        grant(client, valid_from=year["valid_until"], valid_until="2028-01-01T00:00:00+07:00")
        assert park(client, minutes=61).status_code == 201

    def test_an_open_session_is_over_when_the_right_is(self, client: Client, clock: SteppedClock, resources: Resources):
        grant(client)
        session = park(client).json
        assert session["ends_at"] is None
        clock.at("2026-10-14T09:59:59.999")
        assert find(client, session)["state"] == "running"
        clock.at("2026-10-14T10:00")
        found = find(client, session)
        assert (found["state"], found["ended_at"]) == ("expired", "2026-10-14T10:00:00.000+07:00")
        assert found["fee"] == NOTHING
        clock.advance(minutes=16)
        assert jobs.release(resources) == 1 and jobs.close(resources) == 1
        assert find(client, session) == found

    def test_an_open_session_under_a_long_right_is_over_with_the_longest_stay(
        self, client: Client, clock: SteppedClock
    ):
        grant(client, valid_until="2027-01-01T00:00:00+07:00")
        session = park(client).json
        clock.advance(hours=12)
        assert (find(client, session)["state"], find(client, session)["fee"]) == ("expired", NOTHING)

    @pytest.mark.parametrize(
        "changes",
        [{"zone": OTHER}, {"plate": "30A-123.46"}, {"plate": "29-E1 1234", "vehicle_class": "motorbike"}],
    )
    def test_another_place_or_vehicle_is_not_free(self, client: Client, changes: dict):
        grant(client)
        grant(client, plate="29E-112.34")
        assert park(client, **changes).json["code"] == "not_free"

    def test_a_right_in_the_district_or_the_city_and_a_plate_with_a_stroke(self, client: Client):
        bike = {"plate": "29MÐ112345", "vehicle_class": "motorbike"}
        grant(client, zone=None, district="002", **bike)
        assert park(client, plate="29-MĐ1 123.45", vehicle_class="motorbike").status_code == 201
        assert park(client, zone=OTHER, plate="29MĐ1 123.46", vehicle_class="motorbike").json["code"] == "not_free"
        grant(client, zone=None)
        assert park(client, zone=OTHER).status_code == 201

    def test_a_revoked_right_starts_nothing_more_but_what_runs_stays_as_agreed(
        self, client: Client, clock: SteppedClock
    ):
        permit = grant(client).json
        session = park(client, minutes=60).json
        clock.advance(minutes=10)
        revoke(client, permit)
        assert park(client, plate="30A-999.99").json["code"] == "not_free"
        assert act(client, session, "extend", minutes=60).json["fee"] == NOTHING, (
            "the price is frozen, its free time too"
        )
        clock.advance(minutes=100)
        assert act(client, session).json["fee"] == NOTHING
        assert park(client).json["code"] == "not_free"

    def test_an_extension_past_the_right_is_refused(self, client: Client, clock: SteppedClock):
        grant(client)
        session = park(client, minutes=60).json
        clock.advance(minutes=30)
        refused = act(client, session, "extend", minutes=61)
        assert (refused.status_code, refused.json["code"]) == (409, "not_free")
        assert find(client, session) == session, "nothing of it was done"
        extended = act(client, session, "extend", minutes=60)
        assert (extended.json["ends_at"], extended.json["fee"]) == ("2026-10-14T10:00:00.000+07:00", NOTHING)

    def test_an_extension_past_free_minutes_is_refused_too(
        self, client: Client, resources: Resources, database_url: str
    ):
        set_free_minutes(database_url, 15)
        try:
            resources.catalogue.refresh()
            session = park(client, minutes=10).json
            assert act(client, session, "extend", minutes=6).json["code"] == "not_free"
            assert act(client, session, "extend", minutes=5).json["fee"] == NOTHING
        finally:
            set_free_minutes(database_url, 0)

    def test_free_minutes_and_a_right_are_free_as_long_as_the_longer(
        self, client: Client, clock: SteppedClock, resources: Resources, database_url: str
    ):
        set_free_minutes(database_url, 15)
        try:
            resources.catalogue.refresh()
            grant(client, valid_until="2026-10-14T08:10:00+07:00")
            assert park(client, minutes=16).json["code"] == "not_free"
            assert park(client, minutes=15).status_code == 201
        finally:
            set_free_minutes(database_url, 0)

    def test_a_right_serves_also_behind_minutes_that_are_free_by_the_rate(
        self, client: Client, resources: Resources, database_url: str
    ):
        set_free_minutes(database_url, 15)
        try:
            resources.catalogue.refresh()
            grant(client)
            session = park(client, minutes=10).json
            assert act(client, session, "extend", minutes=60).json["fee"] == NOTHING
        finally:
            set_free_minutes(database_url, 0)

    def test_a_free_session_that_ends_by_itself_was_free(
        self, client: Client, clock: SteppedClock, resources: Resources
    ):
        grant(client)
        session = park(client).json
        path = f"/v1/sessions/{session['id']}/payment"
        assert client.get(path, role="driver").json["status"] == "open"
        clock.at("2026-10-14T10:00")
        assert client.get(path, role="driver").json["status"] == "free", "its time is over"
        clock.advance(minutes=30)
        assert jobs.release(resources) == 1 and jobs.close(resources) == 1
        assert client.get(path, role="driver").json["status"] == "free", "and it was closed"

    def test_a_repeated_key_has_the_first_answer_also_after_the_right(self, client: Client, clock: SteppedClock):
        permit = grant(client).json
        first = park(client, key="k", minutes=60)
        assert park(client, key="k", minutes=60).data == first.data
        clock.advance(minutes=5)
        revoke(client, permit)
        assert park(client, key="k", minutes=60).data == first.data
        assert park(client, key="k", minutes=61).json["code"] == "idempotency_conflict"
        act(client, first.json)
        clock.at("2026-10-14T20:00")
        assert park(client, key="k", minutes=60).data == first.data
        clock.at("2026-10-15T08:05")
        assert park(client, key="k", minutes=60).json["code"] == "not_free"

    def test_who_has_a_right_may_pay_all_the_same(self, client: Client):
        grant(client)
        assert park(client, payment_method="wallet", minutes=60).json["fee"]["amount"] == 30_000


class TestStrictOverstay:
    def test_an_overstay_costs_nothing_while_the_right_lasts_and_then_as_a_stay_that_begins_there(
        self, client: Client, clock: SteppedClock, strict_zone: str, database_url: str
    ):
        """
        08:00 |-- asked for --| 09:00 overstay, by right | 10:00 overstay, 25,000 an hour, started
        """
        grant(client, zone=strict_zone)
        session = park(client, zone=strict_zone, minutes=60).json
        for instant, fee in (
            ("09:30", 0), ("10:00", 0), ("10:00:00.001", 25_000), ("11:00", 25_000), ("11:00:00.001", 50_000),
            ("12:00:00.001", 85_000),
        ):  # fmt: skip
            clock.at(f"2026-10-14T{instant}")
            assert find(client, session)["fee"]["amount"] == fee, instant
        stopped = act(client, session).json
        assert stopped["fee"]["amount"] == 85_000
        assert wallet(client)["owed"] == 85_000, "nothing was put aside: it is owed, and paid as any debt"
        receipt = client.get(f"/v1/sessions/{session['id']}/receipt", role="driver").json
        assert receipt["total"]["amount"] == 85_000

    @pytest.mark.parametrize("until", ["2026-10-16", "2026-10-30"])
    def test_an_overstay_past_what_was_priced_is_priced_on_from_the_rights_end(
        self, client: Client, clock: SteppedClock, strict_zone: str, until: str
    ):
        """
        the 14th |-- longest stay, 24 h --|-- by right --| the 16th |-- 24 h --| the 17th: asked for, and stopped
        """
        end = f"{until}T08:00:00+07:00"
        grant(client, zone=strict_zone, valid_until=end)
        session = park(client, zone=strict_zone).json
        day = {"zone": strict_zone, "vehicle_class": "car", "start": end, "minutes": 24 * 60}
        price = client.post("/v1/quotes", json=day, role="driver").json["total"] if until == "2026-10-16" else NOTHING
        clock.at("2026-10-17T08:00")
        found = find(client, session)
        assert (found["state"], found["fee"]) == ("expired", price)
        assert act(client, session).json["fee"] == price
        assert wallet(client)["owed"] == price["amount"]


class TestQuote:
    def quote(self, client: Client, **changes: Any) -> Any:
        body = {"zone": ZONE, "vehicle_class": "car", "start": "2026-10-14T08:00:00+07:00", "minutes": 120} | changes
        return client.post("/v1/quotes", json=body, role="driver")

    def free(self, client: Client, **changes: Any) -> tuple[bool, str]:
        quoted = self.quote(client, **changes).json
        assert quoted["total"]["amount"] > 0, "what it costs without the right"
        return next((one["allowed"], one["reason"]) for one in quoted["payment_methods"] if one["method"] == "free")

    def test_a_quote_that_knows_the_plate_knows_its_rights(self, client: Client, clock: SteppedClock):
        permit = grant(client).json
        assert self.free(client) == (False, "not_free")
        assert self.free(client, plate=None) == (False, "not_free")
        assert self.free(client, plate="30a12345") == (True, "by_right")
        assert self.free(client, plate=PLATE, minutes=121) == (False, "not_free")
        assert self.free(client, plate=PLATE, zone=OTHER) == (False, "not_free")
        assert self.free(client, plate="30A-123.46") == (False, "not_free")
        assert self.free(client, plate=PLATE, start="2026-10-14T07:59:59+07:00", minutes=10) == (False, "not_free")
        assert self.quote(client, plate="xe").json["code"] == "invalid_plate"
        clock.advance(minutes=1)
        revoke(client, permit)
        assert self.free(client, plate=PLATE, start="2026-10-14T08:30:00+07:00", minutes=10) == (False, "not_free")


class TestCheck:
    def verdict(self, client: Client, instant: str, **changes: Any) -> tuple[Any, ...]:
        body = {"plate": PLATE, "zone": ZONE, "captured_at": f"2026-10-14T{instant}+07:00"} | changes
        made = client.post("/v1/enforcement/checks", json=body, role="warden")
        assert made.status_code == 201, made.json
        return tuple(made.json[name] for name in ("verdict", "reasons", "zone", "session", "expired_for_seconds"))

    def test_a_right_is_a_permit_to_the_warden_second_by_second(self, client: Client, clock: SteppedClock):
        """
        08:00 |---- permit ----| 10:00 unpaid
        """
        grant(client)
        clock.at("2026-10-14T11:00")
        permit = ("permit", ["right"], ZONE, None, None)
        unpaid = ("unpaid", ["no_session"], ZONE, None, None)
        assert self.verdict(client, "07:59:59.999") == unpaid
        assert self.verdict(client, "08:00:00") == permit
        assert self.verdict(client, "09:59:59.999") == permit
        assert self.verdict(client, "10:00:00") == unpaid

    def test_a_session_by_right_is_paid_and_then_the_right_itself_lets_stand(self, client: Client, clock: SteppedClock):
        grant(client)
        session = park(client, minutes=30).json
        clock.at("2026-10-14T09:00")
        assert self.verdict(client, "08:29:59.999") == ("paid", ["session"], ZONE, session["id"], None)
        assert self.verdict(client, "08:30:00")[0] == "permit"

    def test_a_revoked_permit_held_until_it_was_revoked(self, client: Client, clock: SteppedClock):
        permit = grant(client).json
        clock.at("2026-10-14T09:00")
        revoke(client, permit)
        assert self.verdict(client, "08:59:59.999")[0] == "permit"
        assert self.verdict(client, "09:00:00")[0] == "unpaid"

    def test_a_text_that_fits_two_vehicles_names_the_one_with_the_right(self, client: Client):
        grant(client, plate="29E11234", vehicle_class="motorbike")
        assert self.verdict(client, "08:00:00", plate="29E11234")[0] == "permit"
        assert self.verdict(client, "08:00:00", plate="29E11234", vehicle_class="car")[0] == "unpaid"

    def test_a_key_repeats_the_verdict_after_the_right_was_revoked(self, client: Client):
        permit = grant(client).json
        body = {"plate": PLATE, "zone": ZONE, "captured_at": "2026-10-14T08:00:00+07:00"}
        first = client.post("/v1/enforcement/checks", json=body, role="warden", key="k")
        revoke(client, permit)
        assert client.post("/v1/enforcement/checks", json=body, role="warden", key="k").data == first.data
        assert first.json["verdict"] == "permit"


def test_the_fast_path_answers_as_flask_does(client: Client, resources: Resources):
    """The same start, refused and free, and the same check, both ways."""
    app = create_app(resources.settings, resources)
    assert isinstance(app.wsgi_app, FastPath)
    app.wsgi_app = Flask.wsgi_app.__get__(app)  # type: ignore[method-assign]
    app.test_client_class = Client
    plain: Any = app.test_client()
    grant(client)
    sent = {"plate": PLATE, "zone": ZONE, "captured_at": "2026-10-14T08:00:00+07:00"}
    for asked in (
        lambda each: park(each, plate="30A-999.99"),
        lambda each: park(each, minutes=121),
        lambda each: park(each, key="k", minutes=60),
        lambda each: each.post("/v1/enforcement/checks", json=sent, role="warden", key="c"),
    ):
        one, other = asked(client), asked(plain)
        assert (one.status, sorted(one.headers), one.data) == (other.status, sorted(other.headers), other.data)
