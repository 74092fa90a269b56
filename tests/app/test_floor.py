"""What every request may meet: problems, limits, health, the document. Nothing leaks, nothing hangs."""

import json
from pathlib import Path

import jsonschema
import pytest
from flask import Flask

from tests.conftest import Client

SESSION = {"zone": "HK-001", "plate": "30A-123.45", "vehicle_class": "car", "payment_method": "cash"}


def assert_problem(answer, status: int, code: str) -> None:
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
    assert (answer.json["status"], answer.json["code"]) == (status, code)


@pytest.mark.parametrize(
    ("method", "path", "kwargs", "status", "code"),
    [
        ("GET", "/nowhere", {}, 404, "not_found"),
        ("GET", "/v1/sessions/not-a-uuid", {"role": "driver"}, 400, "invalid_parameter"),
        ("DELETE", "/v1/zones", {}, 405, "method_not_allowed"),
        ("POST", "/v1/sessions", {"data": b"{", "content_type": "application/json"}, 400, "malformed_body"),
        ("POST", "/v1/sessions", {"data": b"\xff\xfe", "content_type": "application/json"}, 400, "malformed_body"),
        ("POST", "/v1/sessions", {"data": b"{}", "content_type": "text/plain"}, 415, "unsupported_media_type"),
        ("POST", "/v1/sessions", {"json": []}, 422, "invalid_body"),
        ("POST", "/v1/sessions", {"json": "text"}, 422, "invalid_body"),
        ("POST", "/v1/sessions", {"data": b""}, 422, "invalid_body"),
        ("POST", "/v1/sessions", {"json": SESSION | {"plate": "3" * 1_000_000}}, 413, "body_too_large"),
        ("POST", "/v1/sessions", {"json": SESSION | {"plate": "3" * 60_000}}, 422, "invalid_body"),
        ("POST", "/v1/sessions", {"json": SESSION | {"plate": "\x00"}}, 422, "invalid_body"),
        ("POST", "/v1/sessions", {"data": b'{"a":' * 5000, "content_type": "application/json"}, 400, "malformed_body"),
    ],
)
def test_refusals_are_problems(client: Client, method: str, path: str, kwargs: dict, status: int, code: str):
    if path.startswith("/v1/sessions"):
        kwargs = {"role": "driver"} | kwargs
    assert_problem(client.open(path, method=method, **kwargs), status, code)


def test_problem_follows_rfc_9457(client: Client, shared: Path):
    schema = json.loads((shared / "standards/problem/problem.schema.json").read_text())
    for path in ("/nowhere", "/v1/zones?limit=0", "/v1/sessions"):
        jsonschema.validate(client.get(path).json, schema)


def test_405_names_what_is_allowed(client: Client):
    assert "GET" in client.delete("/v1/zones").headers["Allow"]


def test_a_bug_of_ours_leaks_nothing(app: Flask):
    @app.route("/boom")
    def boom() -> str:
        raise RuntimeError("secret")

    app.test_client_class = Client
    app.config["PROPAGATE_EXCEPTIONS"] = False
    answer = app.test_client().get("/boom")
    assert_problem(answer, 500, "internal_server_error")
    assert b"secret" not in answer.data and b"Traceback" not in answer.data


@pytest.mark.parametrize(
    "start", ["0001-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "2026-10-14T08:00:00", "2026-10-14", "now", "", 5, None]
)
def test_instants_outside_reason_are_refused(client: Client, start: object):
    quote = {"zone": "HK-001", "vehicle_class": "car", "start": start, "minutes": 60}
    answer = client.post("/v1/quotes", json=quote, role="driver")
    assert_problem(answer, 422, "invalid_body")
    assert answer.json["errors"][0]["field"] == "start"


def test_quote_before_any_rate_is_refused(client: Client):
    quote = {"zone": "HK-001", "vehicle_class": "car", "start": "2010-01-01T08:00:00+07:00", "minutes": 60}
    assert_problem(client.post("/v1/quotes", json=quote, role="driver"), 409, "no_rate")


def test_health_readiness_and_metrics(client: Client):
    health = client.get("/healthz").json
    assert health == {"status": "ok", "now": "2026-10-14T08:00:00.000+07:00", "clock": {"speed": 1.0}}
    ready = client.get("/readyz")
    assert ready.status_code == 200 and set(ready.json["checks"].values()) == {"ok"}
    assert 'iparking_request_seconds_count{method="GET",route="/healthz",status="200"}' in client.get("/metrics").text


def test_made_up_methods_are_counted_together(client: Client):
    for number in range(3):
        client.open("/nothing", method=f"ZZ{number}")
    lines = client.get("/metrics").text
    assert "ZZ" not in lines
    assert 'iparking_request_seconds_count{method="(other)",route="(none)"' in lines


def test_document_is_served_with_a_page(client: Client):
    document = client.get("/openapi.json").json
    assert document["openapi"].startswith("3.1")
    page = client.get("/docs")
    assert page.status_code == 200
    for path in document["paths"]:
        assert path in page.text
