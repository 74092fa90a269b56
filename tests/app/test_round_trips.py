"""How many SQL statements a request costs: a start, a stop and a check are one, a map none or one.

Only a start of the method `free` where the rate asks something takes another: the look at the vehicle's rights.
"""

import psycopg
import pytest

from app import jobs
from app.resources import Resources
from tests.app.test_permits import grant
from tests.app.test_quotes import set_free_minutes
from tests.conftest import Client

START = {"zone": "HK-001", "plate": "30A-123.45", "vehicle_class": "car", "payment_method": "cash", "minutes": 60}


@pytest.fixture
def statements(resources: Resources, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What this thread's connection was asked to execute."""
    seen: list[str] = []
    execute = psycopg.Cursor.execute

    def counted(cursor, query, *args, **kwargs):
        seen.append(query if isinstance(query, str) else str(query))
        return execute(cursor, query, *args, **kwargs)

    resources.catalogue.stop()  # whose own look once a second is no request's
    monkeypatch.setattr(psycopg.Cursor, "execute", counted)
    return seen


def test_start_and_stop_are_one_statement_each(client: Client, statements: list[str]):
    client.get("/readyz")
    statements.clear()
    session = client.post("/v1/sessions", json=START, role="driver", key="k").json
    assert len(statements) == 1 and "start_sessions" in statements[0]
    statements.clear()
    assert client.post(f"/v1/sessions/{session['id']}/stop", json={}, role="driver", key="s").json["state"] == "ended"
    assert len(statements) == 1 and "stop_sessions" in statements[0] and "charge_sessions" in statements[0]


def test_refused_and_repeated_starts_are_one_statement_too(client: Client, statements: list[str]):
    client.post("/v1/sessions", json=START, role="driver", key="k")
    statements.clear()
    client.post("/v1/sessions", json=START, role="driver", key="k")
    client.post("/v1/sessions", json=START, role="driver-1", key="other")
    assert len(statements) == 2


def test_free_start_looks_at_rights_first_and_only_where_the_rate_asks_something(
    client: Client, resources: Resources, database_url: str, statements: list[str]
):
    grant(client, plate=START["plate"])
    statements.clear()
    free = START | {"payment_method": "free"}
    session = client.post("/v1/sessions", json=free, role="driver", key="k").json
    assert ["start_sessions" in each for each in statements] == [False, True] and "parking_right" in statements[0]
    statements.clear()
    assert client.post(f"/v1/sessions/{session['id']}/stop", json={}, role="driver").json["fee"]["amount"] == 0
    assert len(statements) == 1
    try:
        for minutes, number in ((60, 2), (100_000, 1)):  # of an hour, and of the longest stay
            set_free_minutes(database_url, minutes)
            resources.catalogue.refresh()
            statements.clear()
            started = client.post("/v1/sessions", json=free, role="driver", key=f"other-{minutes}")
            assert started.status_code == 201
            assert len(statements) == number and "start_sessions" in statements[-1]
            client.post(f"/v1/sessions/{started.json['id']}/stop", json={}, role="driver")
    finally:
        set_free_minutes(database_url, 0)


@pytest.mark.parametrize("granted", [False, True])
def test_check_of_who_has_not_paid_is_one_statement_too(client: Client, granted: bool, statements: list[str]):
    if granted:
        grant(client, plate="30A-123.45")
    sighting = {"plate": "30A-123.45", "zone": "HK-001", "captured_at": "2026-10-14T08:00:00+07:00"}
    statements.clear()
    made = client.post("/v1/enforcement/checks", json=sighting, role="warden").json
    assert made["verdict"] == ("permit" if granted else "unpaid")
    assert len(statements) == 1 and "check_vehicles" in statements[0]


def test_check_is_one_statement(client: Client, statements: list[str]):
    sighting = {"plate": "30A-123.45", "vehicle_class": "car", "zone": "HK-001"}
    body = sighting | {"captured_at": "2026-10-14T08:00:00+07:00"}
    for key in (None, "k", "k"):
        statements.clear()
        assert client.post("/v1/enforcement/checks", json=body, role="warden", key=key).status_code == 201
        assert len(statements) == 1 and "check_vehicles" in statements[0]


def test_map_and_quote_ask_postgresql_nothing_while_redis_knows(
    client: Client, resources: Resources, statements: list[str]
):
    jobs.reconcile(resources)
    statements.clear()
    assert len(client.get("/v1/zones?limit=1000").json["features"]) >= 151
    quote = {"zone": "HK-001", "vehicle_class": "car", "start": "2026-10-14T08:00:00+07:00", "minutes": 60}
    assert client.post("/v1/quotes", json=quote, role="driver").status_code == 200
    assert statements == []
    assert client.post("/v1/quotes", json=quote | {"plate": "30A-123.45"}, role="driver").status_code == 200
    assert len(statements) == 1 and "parking_right" in statements[0]


def test_map_without_redis_is_one_statement(lonely_client: Client, statements: list[str]):
    statements.clear()
    assert len(lonely_client.get("/v1/zones?limit=1000").json["features"]) >= 151
    assert len(statements) == 1
