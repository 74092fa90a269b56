from tests.conftest import Client, SteppedClock


def test_smoke(client: Client, clock: SteppedClock):
    body = {"zone": "HK-001", "plate": "30A-123.45", "vehicle_class": "car", "payment_method": "wallet"}
    print(client.post("/v1/sessions", json=body, role="driver").json)
    clock.advance(minutes=20)
    a = client.get(
        "/v1/reports/occupancy?from=2026-10-14T08:00:00%2B07:00&to=2026-10-14T09:00:00%2B07:00&bucket=15m&zone=HK-001&limit=5",
        role="planner",
    )
    print(a.status_code, a.data.decode(), a.headers)
    a = client.get(
        "/v1/reports/revenue?from=2026-10-14T08:00:00%2B07:00&to=2026-10-14T09:00:00+07:00&bucket=15m&by=district&district=002",
        role="planner",
        headers={"Accept": "text/csv"},
    )
    print(a.status_code, a.data.decode(), a.headers)
    a = client.post(
        "/v1/enforcement/checks",
        json={"plate": "30a 12345", "zone": "HK-001", "captured_at": "2026-10-14T08:20:00+07:00"},
        role="warden",
        key="a",
    )
    print(a.status_code, a.data.decode(), a.headers)
    assert 0
