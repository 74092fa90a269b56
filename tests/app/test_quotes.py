"""Quotes over HTTP: the golden bills, and that a quote is what the session then costs."""

import pytest

from tests.conftest import Client, SteppedClock


def core_zone(client: Client) -> str:
    features = client.get("/v1/zones?limit=1000").json["features"]
    return next(
        f["id"] for f in features if f["properties"]["rate_area"] == "core" and f["properties"]["kind"] == "kerb"
    )


def quote(
    client: Client, zone: str, minutes: int, start: str = "2026-10-14T08:00:00+07:00", vehicle_class: str = "car"
):
    body = {"zone": zone, "vehicle_class": vehicle_class, "start": start, "minutes": minutes}
    return client.post("/v1/quotes", json=body, role="driver")


@pytest.mark.parametrize(
    ("hours", "total"), [(1, 25_000), (2, 50_000), (3, 85_000), (4, 120_000), (5, 165_000), (8, 300_000), (9, 345_000)]
)
def test_golden_bills(client: Client, hours: int, total: int):
    answer = quote(client, core_zone(client), hours * 60)
    assert answer.json["total"] == {"amount": total, "currency": "VND"}
    assert sum(line["amount"] for line in answer.json["lines"]) == total
    assert answer.json["max_stay_minutes"] == 720


def test_a_night_is_capped(client: Client):
    answer = quote(client, core_zone(client), 720, "2026-10-14T18:00:00+07:00")
    assert answer.json["total"]["amount"] == 150_000


def test_quote_is_what_a_session_of_that_length_costs(client: Client, clock: SteppedClock):
    zone = core_zone(client)
    for n, minutes in enumerate((1, 60, 61, 200, 719, 720)):
        quoted = quote(client, zone, minutes).json
        body = {
            "zone": zone,
            "plate": f"30A-{n:03}.00",
            "vehicle_class": "car",
            "payment_method": "cash",
            "minutes": minutes,
        }
        session = client.post("/v1/sessions", json=body, role="driver").json
        assert (session["fee"], session["rate_version"]) == (quoted["total"], quoted["rate_version"])


def test_longer_than_the_maximum_stay_is_refused(client: Client):
    assert quote(client, core_zone(client), 721).json["code"] == "max_stay_exceeded"


def test_quotes_past_and_future_and_for_motorbikes(client: Client):
    for start in ("2018-01-01T00:00:00+07:00", "2099-06-01T00:00:00+07:00"):
        assert quote(client, "HK-001", 60, start).status_code == 200
    assert quote(client, "HK-001", 60, vehicle_class="motorbike").json["total"]["amount"] == 5_000


def test_key_makes_a_quote_repeatable(client: Client):
    body = {"zone": "HK-001", "vehicle_class": "car", "start": "2026-10-14T08:00:00+07:00", "minutes": 60}
    first = client.post("/v1/quotes", json=body, role="driver", key="q")
    assert client.post("/v1/quotes", json=body, role="driver", key="q").data == first.data
    other = client.post("/v1/quotes", json=body | {"minutes": 61}, role="driver", key="q")
    assert (other.status_code, other.json["code"]) == (422, "idempotency_conflict")
