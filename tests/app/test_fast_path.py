"""The fast path accepts, refuses and answers exactly as Flask with the documented schemas does."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app import create_app, parking
from app.fast_path import CHECK, START, STOP, FastPath
from app.resources import Resources
from billing.gateways import METHODS
from tests.conftest import Client
from zones.enforcement import Check
from zones.errors import ZoneFull
from zones.sessions import Session
from zones.terms import KNOWN_CLASSES

ID = "0199e7a0-0000-7000-8000-000000000001"
PATHS = {START: "/v1/sessions", STOP: f"/v1/sessions/{ID}/stop", CHECK: "/v1/enforcement/checks"}
ROLES = {START: "driver", STOP: "driver", CHECK: "warden"}
AT = datetime(2026, 10, 14, 1, 0, tzinfo=UTC)
SESSION = Session(UUID(ID), "HK-001", "30A-123.45", "car", "running", AT, None, None, "wallet", "core-1", 25_000)
MADE = Check(UUID(ID), "30A-123.45", "car", "paid", ["session"], "HK-001", UUID(ID), None, [], AT)
GOOD: dict[Any, dict[str, Any]] = {
    START: {"zone": "HK-001", "plate": "30A-123.45", "vehicle_class": "car", "payment_method": "wallet", "minutes": 60},
    STOP: {"stopped_at": "2026-10-14T08:00:00+07:00"},
    CHECK: {
        "plate": "30A-123.45", "vehicle_class": "car", "zone": "HK-001",
        "position": {"lat": 21.02, "lng": 105.84, "accuracy": 8}, "captured_at": "2026-10-14T08:00:00+07:00",
    },
}  # fmt: skip


class Asked:
    """What reached the use cases. They answer the same to all."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def start(self, held: Resources, *asked: Any) -> Session:
        self.calls.append(asked)
        return SESSION

    stop = start

    def check(self, held: Resources, *asked: Any) -> Check:
        self.calls.append(asked)
        return MADE


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked()
    for name in ("start", "stop", "check"):
        monkeypatch.setattr(parking, name, getattr(asked, name))
    return asked


@pytest.fixture
def plain(resources: Resources) -> Client:
    """A client of the same service without the fast path."""
    app = create_app(resources.settings, resources)
    assert isinstance(app.wsgi_app, FastPath)
    app.wsgi_app = Flask.wsgi_app.__get__(app)  # type: ignore[method-assign]
    app.test_client_class = Client
    return app.test_client()  # type: ignore[return-value]


@pytest.fixture
def through_flask(client: Client, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that the fast path handed on to Flask."""
    fast = client.application.wsgi_app
    handed: list[str] = []
    onward = fast._next

    def counted(environ: dict[str, Any], start_response: Any) -> Any:
        handed.append(environ["PATH_INFO"])
        return onward(environ, start_response)

    monkeypatch.setattr(fast, "_next", counted)
    return handed


def compare(client: Client, plain: Client, asked: Asked, path: str, **request: Any) -> int:
    """The same request both ways: status, headers, body, and what the use case was asked, are the same."""
    asked.calls.clear()
    one, other = client.post(path, **request), plain.post(path, **request)
    assert (one.status, sorted(one.headers), one.data) == (other.status, sorted(other.headers), other.data)
    assert len(asked.calls) in (0, 2)
    assert asked.calls[:1] == asked.calls[1:]
    return one.status_code


instants = st.one_of(
    st.datetimes(*(datetime(year, 2, 1) for year in (1999, 2101)), timezones=st.just(UTC)).map(  # noqa: DTZ001
        lambda at: at.isoformat()
    ),
    st.sampled_from(
        [
            "2026-02-30T08:00:00Z", "2026-10-14T08:00:00", "2026-10-14T08:00:00Z", "2026-10-14 08:00:00Z",
            "20261014T080000Z",
            "2026-10-14T08:00:00.1234567Z", "2026-10-14T08:00:00+25:00", "2026-10-14T24:00:00Z", "2026-10-14T08:00:60Z",
            "2026-10-14T08:00Z", "٢٠٢٦-10-14T08:00:00Z", "2026-10-14T08:00:00Z\n", "",
            "2099-12-31T23:59:59.999999-12:00",
        ]
    ),
)  # fmt: skip
texts = st.one_of(
    st.text(max_size=70), st.sampled_from(["HK-001", "30A-123.45", "29-MĐ1 123.45", "a\x00", "a\n", "\ud800", ""])
)
anything = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-5, 2_000_000), st.floats(), st.sampled_from([10**30, 60.0, 1e-400]),
        texts, instants, st.sampled_from([*KNOWN_CLASSES, *METHODS, "bicycle"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(texts, inner, max_size=2)),
    max_leaves=3,
)  # fmt: skip
positions = st.fixed_dictionaries(
    {"lat": st.floats(-91, 91) | anything, "lng": st.floats(-181, 181) | anything},
    optional={"accuracy": st.integers(-1, 1001) | anything, "altitude": anything},
)


@st.composite
def bodies(draw: st.DrawFn, route: Any) -> dict[str, Any]:
    """A good body with some fields left out, changed, or added."""
    body = dict(GOOD[route])
    for name in draw(st.lists(st.sampled_from([*body, "extra"]), max_size=2, unique=True)):
        if draw(st.booleans()):
            body.pop(name, None)
        else:
            body[name] = draw(positions if name == "position" else instants | anything if "_at" in name else anything)
    return body


@pytest.mark.parametrize("route", PATHS, ids=lambda route: route.rule)
def test_ordinary_requests_do_not_reach_flask(
    route: Any, client: Client, plain: Client, asked: Asked, through_flask: list[str]
):
    status = compare(client, plain, asked, PATHS[route], json=GOOD[route], role=ROLES[route], key="k")
    assert status == route.status and through_flask == []


@pytest.mark.parametrize("route", PATHS, ids=lambda route: route.rule)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_any_body_is_answered_the_same(route: Any, client: Client, plain: Client, asked: Asked, data: st.DataObject):
    body = json.dumps(data.draw(bodies(route))).encode("utf-8", "surrogatepass")
    key = data.draw(st.sampled_from([None, "k", 'a"b']))
    sent = {"data": body, "content_type": "application/json", "role": ROLES[route], "key": key}
    compare(client, plain, asked, PATHS[route], **sent)


@pytest.mark.parametrize("route", PATHS, ids=lambda route: route.rule)
@pytest.mark.parametrize(
    "raw",
    [
        b"", b" ", b"{", b"null", b"[]", b"\xff",
        b'{"zone": "\xff"}', b"\xef\xbb\xbf{}", b'{"zone":"A","zone":"HK-001"}',
        b"{} {}", b"{}" + b" " * 5000, b'{"minutes": NaN}', b'{"stopped_at": null}',
    ],
)  # fmt: skip
def test_any_bytes_are_answered_the_same(route: Any, raw: bytes, client: Client, plain: Client, asked: Asked):
    for kind in ("application/json", "application/json; charset=utf-8", "text/plain", "Application/JSON"):
        compare(client, plain, asked, PATHS[route], data=raw, content_type=kind, role=ROLES[route])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=260))
@example(value="Bearer driver-key")
@example(value="bearer driver-key")
@example(value="Bearer  driver-key ")
@example(value="Bearer warden-key")
def test_any_authorization_and_key_are_answered_the_same(value: str, client: Client, plain: Client, asked: Asked):
    for headers in ({"Authorization": value}, {"Authorization": "Bearer driver-key", "Idempotency-Key": value}):
        compare(client, plain, asked, "/v1/sessions", json=GOOD[START], headers=headers)


@pytest.mark.parametrize(
    "path", ["/v1/sessions/", "/v1/sessions/x/stop", f"/v1/sessions/{ID.upper()}/stop", f"/v1/sessions/{ID}/stop/"]
)
def test_other_spellings_of_a_path_are_answered_the_same(path: str, client: Client, plain: Client, asked: Asked):
    compare(client, plain, asked, path, json=GOOD[STOP], role="driver")


def test_refusals_and_our_own_failures_are_answered_the_same(
    client: Client, plain: Client, monkeypatch: pytest.MonkeyPatch, through_flask: list[str]
):
    for error, status in (
        (ZoneFull("zone HK-001 has no place left for a car"), 409),
        (ZeroDivisionError("our bug"), 500),
    ):

        def fail(*asked: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(parking, "start", fail)
        for each in (client, plain):
            each.application.config["PROPAGATE_EXCEPTIONS"] = False
        one, other = (each.post("/v1/sessions", json=GOOD[START], role="driver") for each in (client, plain))
        assert (one.status_code, one.data) == (status, other.data)
        assert sorted(one.headers) == sorted(other.headers)
    assert through_flask == []


numbers = st.one_of(
    st.floats(105.7, 105.95).map(str), st.floats(20.9, 21.2).map("{:.4f}".format),
    st.sampled_from(["105", "-0", "1e2", "inf", "", "+1"]),
    st.integers(-400, 400).map(str), st.text(max_size=5),
)  # fmt: skip
boxes = st.one_of(
    st.lists(numbers, min_size=3, max_size=5).map(",".join),
    st.tuples(st.floats(105.7, 105.95), st.floats(20.9, 21.2), st.floats(0, 0.1), st.floats(0, 0.1)).map(
        lambda at: f"{at[0]},{at[1]},{at[0] + at[2]},{at[1] + at[3]}"
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(box=boxes, more=st.sampled_from(["", "", "", "&limit=2", "&q=hang", "&bbox=1,1,2,2", "&", "#"]))
@example(box="105.0,20.0,107.0,22.0", more="")
@example(box="٠,20,107,22", more="")
@example(box="0,0,1,1", more="")
def test_any_box_is_answered_the_same(box: str, more: str, client: Client, plain: Client):
    one, other = (each.get(f"/v1/zones?bbox={box}{more}") for each in (client, plain))
    assert (one.status, sorted(one.headers), one.data) == (other.status, sorted(other.headers), other.data)


def test_a_box_does_not_reach_flask_but_one_with_a_condition_does(
    client: Client, plain: Client, through_flask: list[str]
):
    path = "/v1/zones?bbox=105.80,21.00,105.86,21.04"
    etag = client.get(path).headers["ETag"]
    assert through_flask == []
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 304
    assert through_flask == ["/v1/zones"]


def test_answers_are_counted_by_route(client: Client, asked: Asked):
    line = 'iparking_request_seconds_count{method="POST",route="/v1/sessions/<session_id>/stop",status="200"}'

    def counted() -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(each.rpartition(" ")[2]) for each in lines if each.startswith(line))

    before = counted()
    client.post(PATHS[STOP], json={}, role="driver")
    assert counted() == before + 1
