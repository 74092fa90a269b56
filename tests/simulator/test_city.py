"""The city, as the service or a file tells it."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.serving import make_server

from simulator.city import City, CityError, District, centroid
from tests.simulator.cities import zone

SHIPPED = Path(__file__).parents[2] / "zones" / "data" / "zones.geojson"
SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [4, 0], [4, 2], [0, 2], [0, 0]]]}


def feature(code: str, **facts: Any) -> dict[str, Any]:
    usual = {
        "code": code,
        "name": f"Phố {code}",
        "district": "002",
        "rate_area": "core",
        "kind": "kerb",
        "admission": "advisory",
        "max_stay_minutes": 720,
        "capacity": {"car": 16, "motorbike": 40, "large": 3},
    }
    return {"type": "Feature", "geometry": SQUARE, "properties": usual | facts}


def collection(*features: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features)}


def a_file(folder: Path, document: Any) -> Path:
    path = folder / "zones.geojson"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


class Pages(HTTPServer):
    """Answers GET by path: (body, Link header)."""

    answers: dict[str, tuple[bytes, str | None]]


class Handler(BaseHTTPRequestHandler):
    server: Pages

    def do_GET(self) -> None:
        body, link = self.server.answers.get(self.path, (b"{}", None))
        self.send_response(200 if self.path in self.server.answers else 500)
        self.send_header("Content-Length", str(len(body)))
        if link is not None:
            self.send_header("Link", link)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """The tests' output stays their own."""


@pytest.fixture
def service() -> Iterator[Pages]:
    with Pages(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def url_of(server: Pages) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def districts() -> bytes:
    properties = [{"code": "002", "name": "Hoàn Kiếm"}, {"code": "001", "name": "Ba Đình"}]
    return json.dumps(collection(*({"properties": facts} for facts in properties))).encode()


def test_city_is_read_over_http_page_by_page(service: Pages) -> None:
    first, second = (json.dumps(collection(feature(code))).encode() for code in ("HK-002", "HK-001"))
    link = f'<{url_of(service)}/v1/zones>; rel="self", </v1/zones?cursor=a,b>; rel="next"'
    service.answers = {
        "/v1/districts": (districts(), None),
        "/v1/zones": (first, link),
        "/v1/zones?cursor=a,b": (second, '</v1/zones>; rel="first"'),
    }
    city = City.from_api(url_of(service) + "/")
    assert [found.code for found in city.zones] == ["HK-001", "HK-002"]
    assert city.districts == (District("001", "Ba Đình"), District("002", "Hoàn Kiếm"))
    assert city.by_code["HK-001"].capacity == {"car": 16, "motorbike": 40}
    assert city.by_code["HK-001"].centroid == (2.0, 1.0)


def test_service_that_fails_rambles_or_turns_in_circles_is_named(
    service: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.answers = {"/v1/districts": (districts(), None)}
    with pytest.raises(CityError, match="/v1/zones: HTTP Error 500"):
        City.from_api(url_of(service))
    service.answers["/v1/zones"] = (b"<html>", None)
    with pytest.raises(CityError, match="/v1/zones"):
        City.from_api(url_of(service))
    service.answers["/v1/zones"] = (b"[]", None)
    with pytest.raises(CityError, match="FeatureCollection"):
        City.from_api(url_of(service))
    monkeypatch.setattr("simulator.city.MAX_PAGES", 3)
    service.answers["/v1/zones"] = (json.dumps(collection()).encode(), '</v1/zones>; rel="next"')
    with pytest.raises(CityError, match="more than 3 pages"):
        City.from_api(url_of(service))


def test_real_service_tells_the_city_that_was_shipped(app: Flask) -> None:
    server = make_server("127.0.0.1", 0, app)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        served = City.from_api(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    shipped = City.from_geojson(SHIPPED)
    assert served.digest() == shipped.digest()
    assert {district.code: district.name for district in served.districts}["002"] == "Hoàn Kiếm"
    for ours, theirs in zip(shipped.zones, served.zones, strict=True):
        assert theirs.centroid == pytest.approx(ours.centroid, abs=1e-5)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "nonsense", "http://127.0.0.1:1"])
def test_address_where_no_service_is_found_is_named(url: str) -> None:
    with pytest.raises(CityError, match=url):
        City.from_api(url)


def test_city_is_read_from_a_file(tmp_path: Path) -> None:
    document = collection(feature("DD-001", district="006"), feature("HK-001", admission="strict"))
    city = City.from_geojson(a_file(tmp_path, document))
    assert [(found.code, found.strict) for found in city.zones] == [("DD-001", False), ("HK-001", True)]
    assert city.districts == (District("002", "002"), District("006", "006"))
    assert city.places("car") == 32


def test_shipped_zones_are_a_city() -> None:
    city = City.from_geojson(SHIPPED)
    assert city.places("car") >= 4500
    assert len(city.districts) == 9
    assert all(105 < found.centroid[0] < 106 and 20 < found.centroid[1] < 22 for found in city.zones)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"admission": "maybe"}, "admission"),
        ({"max_stay_minutes": 0}, "max_stay_minutes"),
        ({"max_stay_minutes": None}, "zone HK-001"),
        ({"capacity": {"car": -1}}, "capacity"),
        ({"capacity": [16]}, "zone HK-001"),
    ],
)
def test_zone_that_breaks_a_rule_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(CityError, match=words) as caught:
        City.from_geojson(a_file(tmp_path, collection(feature("HK-001", **change))))
    assert "HK-001" in str(caught.value)


@pytest.mark.parametrize(
    "document",
    [
        "{",
        "[]",
        {"type": "FeatureCollection"},
        collection(3),
        collection({}),
        collection({"properties": {"code": "HK-001"}}),
        collection(feature("HK-001"), feature("HK-001")),
        collection(feature("HK-001") | {"geometry": None}),
        collection(feature("HK-001") | {"geometry": {"type": "Polygon", "coordinates": []}}),
        collection(feature("HK-001") | {"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 0]]]}}),
    ],
)
def test_file_that_is_no_city_is_refused(tmp_path: Path, document: Any) -> None:
    with pytest.raises(CityError):
        City.from_geojson(a_file(tmp_path, document))


def test_digest_changes_with_what_the_demand_depends_on_alone() -> None:
    first, second = zone("HK-001"), zone("HK-002")
    city = City((first, second), ())
    assert city.digest() == City((second, first), ()).digest()
    assert city.digest() == City((first, zone("HK-002", name="another name")), ()).digest()
    assert city.digest() != City((first, zone("HK-002", capacity={"car": 99})), ()).digest()


def test_holes_do_not_move_a_centroid_and_parts_weigh_by_area() -> None:
    assert centroid({"type": "Point", "coordinates": [105.8, 21.0]}) == (105.8, 21.0)
    small = [[[10, 0], [12, 0], [12, 2], [10, 2], [10, 0]]]
    both = {"type": "MultiPolygon", "coordinates": [SQUARE["coordinates"], [small[0][::-1]]]}
    assert centroid(both) == pytest.approx(((2 * 8 + 11 * 4) / 12, 1.0))


@given(
    west=st.floats(100, 110),
    south=st.floats(10, 25),
    width=st.floats(1e-5, 1e-2),
    height=st.floats(1e-5, 1e-2),
    turn=st.booleans(),
)
def test_centroid_of_a_rectangle_is_its_middle_whichever_way_it_turns(
    west: float, south: float, width: float, height: float, turn: bool
) -> None:
    ring = [[west, south], [west + width, south], [west + width, south + height], [west, south + height], [west, south]]
    found = centroid({"type": "Polygon", "coordinates": [ring[::-1] if turn else ring]})
    assert found == pytest.approx((west + width / 2, south + height / 2), abs=1e-9)
