"""Districts and zones over HTTP: RFC 7946, searching, caching, bad parameters, and honesty about what is not known."""

import json
from pathlib import Path

import jsonschema
import pytest
import shapely

from tests.conftest import Client, SteppedClock

ALL = 1000


def codes(answer) -> list[str]:
    return [feature["properties"]["code"] for feature in answer.json["features"]]


def assert_right_handed(geometry: dict) -> None:
    """RFC 7946, 3.1.6: rings are closed, outer ones run anticlockwise, holes clockwise."""
    polygons = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    for rings in polygons:
        for number, ring in enumerate(rings):
            assert ring[0] == ring[-1] and len(ring) >= 4
            assert shapely.LinearRing(ring).is_ccw == (number == 0)


@pytest.mark.parametrize("path", ["/v1/districts", "/v1/zones?limit=1000", "/v1/zones/HK-001"])
def test_answers_are_valid_geojson(client: Client, shared: Path, path: str):
    answer = client.get(path)
    assert answer.status_code == 200 and answer.mimetype == "application/geo+json"
    jsonschema.validate(answer.json, json.loads((shared / "standards/geojson/GeoJSON.json").read_text()))
    for feature in answer.json.get("features", [answer.json]):
        assert_right_handed(feature["geometry"])


def test_nine_districts_with_their_zones(client: Client):
    districts = [feature["properties"] for feature in client.get("/v1/districts").json["features"]]
    assert [d["code"] for d in districts] == ["001", "002", "003", "004", "005", "006", "007", "009", "019"]
    assert {d["name"]: d["joined"] for d in districts}["Hoàn Kiếm"] == "2018-01-01"
    assert sum(d["zones"] for d in districts) == len(codes(client.get(f"/v1/zones?limit={ALL}"))) >= 151
    for district in districts:
        assert len(codes(client.get(f"/v1/zones?district={district['code']}"))) == district["zones"]


@pytest.mark.parametrize(
    ("query", "district"), [("hoan kiem", "002"), ("dong da", "006"), ("ĐỐNG ĐA", "006"), ("Cầu Giấy", "005")]
)
def test_search_folds_accents(client: Client, query: str, district: str):
    found = client.get("/v1/zones", query_string={"q": query, "limit": ALL})
    of_district = client.get(f"/v1/zones?district={district}")
    assert codes(found) and set(codes(of_district)) <= set(codes(found))


def test_search_finds_a_street_with_and_without_its_kind(client: Client):
    full = codes(client.get("/v1/zones", query_string={"q": "phố trần hưng đạo"}))
    assert full and set(full) <= set(codes(client.get("/v1/zones", query_string={"q": "tran hung dao"})))


def test_box_holds_what_touches_it(client: Client):
    zone = shapely.geometry.shape(client.get("/v1/zones/HK-001").json["geometry"])
    west, south, east, north = zone.bounds
    assert "HK-001" in codes(client.get(f"/v1/zones?bbox={west},{south},{east},{north}"))
    assert codes(client.get("/v1/zones?bbox=0,0,1,1")) == []


def test_near_sorts_by_distance(client: Client):
    centre = shapely.geometry.shape(client.get("/v1/zones/HK-001").json["geometry"]).centroid
    found = codes(client.get(f"/v1/zones?near={centre.y},{centre.x}&radius=1000"))
    assert found[0] == "HK-001" and len(found) > 1
    assert codes(client.get(f"/v1/zones?near={centre.y},{centre.x}&radius=1")) == ["HK-001"]


def test_pages_add_up_to_the_whole(client: Client):
    whole, link, pages = codes(client.get(f"/v1/zones?limit={ALL}")), "/v1/zones?limit=60", []
    while link:
        answer = client.get(link)
        pages += codes(answer)
        link = answer.headers["Link"].split(";")[0].strip("<>") if "Link" in answer.headers else None
    assert pages == whole


def test_unchanged_answer_is_304_and_a_start_changes_it(client: Client):
    first = client.get("/v1/zones/HK-001")
    assert client.get("/v1/zones/HK-001", headers={"If-None-Match": first.headers["ETag"]}).status_code == 304
    start = {"zone": "HK-001", "plate": "30A-123.45", "vehicle_class": "car", "payment_method": "cash"}
    assert client.post("/v1/sessions", json=start, role="driver").status_code == 201
    assert client.get("/v1/zones/HK-001", headers={"If-None-Match": first.headers["ETag"]}).status_code == 200
    districts = client.get("/v1/districts")
    assert client.get("/v1/districts", headers={"If-None-Match": districts.headers["ETag"]}).status_code == 304


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("bbox=0,0,900,900", "bbox"),
        ("bbox=1,2,3", "bbox"),
        ("bbox=a,b,c,d", "bbox"),
        ("bbox=nan,0,1,1", "bbox"),
        ("bbox=2,0,1,1", "bbox"),
        ("near=500,500", "near"),
        ("near=21.02", "near"),
        ("near=21,105&radius=-1", "radius"),
        ("near=21,105&radius=nan", "radius"),
        ("vehicle_class=bicycle", "vehicle_class"),
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("q=%00", "q"),
        ("q=", "q"),
        ("colour=red", "colour"),
    ],
)
def test_bad_parameter_is_named(client: Client, query: str, field: str):
    answer = client.get(f"/v1/zones?{query}")
    assert (answer.status_code, answer.json["code"]) == (400, "invalid_parameter")
    assert [error["field"] for error in answer.json["errors"]] == [field]


def test_unknown_zone_is_404(client: Client):
    for path in ("/v1/zones/XX-999", "/v1/zones/XX-999/availability", "/v1/zones/%00"):
        answer = client.get(path)
        assert (answer.status_code, answer.mimetype) == (404, "application/problem+json")


def test_availability_says_what_it_knows(client: Client, clock: SteppedClock):
    car = client.get("/v1/zones/HK-001/availability").json["car"]
    assert car["source"] == "paid" and car["as_of"] == "2026-10-14T08:00:00.000+07:00"
    assert car["available"] == car["capacity"] - car["occupied"] and isinstance(car["version"], int)


def test_availability_without_redis_comes_from_postgresql(client: Client, lonely_client: Client):
    start = {"zone": "HK-001", "plate": "30A-123.45", "vehicle_class": "car", "payment_method": "cash"}
    client.post("/v1/sessions", json=start, role="driver")
    with_redis = client.get("/v1/zones/HK-001/availability").json
    assert with_redis["car"]["occupied"] == 1
    assert lonely_client.get("/v1/zones/HK-001/availability").json == with_redis
    ready = lonely_client.get("/readyz")
    assert (ready.status_code, ready.json["checks"]["redis"]) == (200, "down")
