"""The shipped city against the true one (OpenStreetMap in the shared folder)."""

import json
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import shapely
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from zones.data import make
from zones.geometry import LocalPlane

DATA = Path(make.__file__).parent
HANOI = LocalPlane(105.82, 21.02)
FIRST, LATER = "2018-01-01", "2018-03-20"
# code: prefix of its zones' codes, date of joining, rate area outside the restricted streets
CITY = {
    "001": ("BD", FIRST, "core"),
    "002": ("HK", FIRST, "core"),
    "003": ("TH", LATER, "inside_ring_3"),
    "004": ("LB", LATER, "beyond_ring_3"),
    "005": ("CG", LATER, "inside_ring_3"),
    "006": ("DD", FIRST, "core"),
    "007": ("HBT", FIRST, "core"),
    "009": ("TX", LATER, "inside_ring_3"),
    "019": ("NTL", LATER, "beyond_ring_3"),
}
RESTRICTED = {
    "Nguyễn Xí", "Đinh Lễ", "Lý Thái Tổ", "Trần Hưng Đạo", "Lý Thường Kiệt", "Hai Bà Trưng",
    "Hàng Đường", "Hàng Đào", "Hàng Ngang", "Hàng Giấy", "Phủ Doãn", "Quán Sứ",
}  # fmt: skip


def collection(name: str) -> dict[str, Any]:
    return json.loads((DATA / f"{name}.geojson").read_text(encoding="utf-8"))


def metres(feature: dict[str, Any]) -> BaseGeometry:
    return HANOI.to_metres(shape(feature["geometry"]))


ZONES = collection("zones")["features"]
FACTS = [zone["properties"] for zone in ZONES]
SHAPES = [metres(zone) for zone in ZONES]
DISTRICTS = {each["properties"]["code"]: each for each in collection("districts")["features"]}
OUTLINES = {code: metres(each) for code, each in DISTRICTS.items()}


@pytest.fixture(scope="module")
def hanoi(shared: Path) -> Callable[[str], list[dict[str, Any]]]:
    """Features of a file of the true city."""
    folder = shared / "data" / "hanoi"
    return lambda name: json.loads((folder / f"{name}.geojson").read_text(encoding="utf-8"))["features"]


@pytest.fixture(scope="module")
def true_outlines(hanoi: Callable[[str], list[dict[str, Any]]]) -> dict[str, BaseGeometry]:
    return {each["properties"]["code"]: metres(each) for each in hanoi("districts")}


def far(zone: BaseGeometry, lines: BaseGeometry) -> float:
    """Metres from the lines to the zone's farthest corner."""
    return max(lines.distance(corner) for corner in shapely.points(shapely.get_coordinates(zone)))


def bare(street: str) -> str:
    return street.removeprefix("Phố ").removeprefix("Đường ")


def test_the_nine_districts_are_there_with_their_dates_of_joining():
    assert {code: each["properties"]["joined"] for code, each in DISTRICTS.items()} == {
        code: joined for code, (_, joined, _) in CITY.items()
    }


def test_district_names_are_the_citys(hanoi):
    true = {each["properties"]["code"]: each["properties"]["short_name"] for each in hanoi("districts")}
    assert {code: each["properties"]["name"] for code, each in DISTRICTS.items()} == {c: true[c] for c in DISTRICTS}


def test_outlines_overlap_the_true_ones(true_outlines):
    for code, outline in OUTLINES.items():
        true = true_outlines[code]
        assert outline.intersection(true).area / outline.union(true).area >= 0.97, code


def test_neighbours_share_edges():
    assert shapely.coverage_is_valid(list(OUTLINES.values()))
    assert all(one.intersection(other).area < 1_000 for one, other in combinations(OUTLINES.values(), 2))


def test_no_gap_opens_between_districts(true_outlines):
    city = shapely.union_all(list(OUTLINES.values()))
    true = shapely.union_all([true_outlines[code] for code in OUTLINES])
    assert [len(part.interiors) for part in shapely.get_parts(city)] == [0]
    for one, other in combinations(OUTLINES, 2):
        is_border = true_outlines[one].intersection(true_outlines[other]).length > 100
        assert (OUTLINES[one].intersection(OUTLINES[other]).length > 50) == is_border, (one, other)
    assert city.intersection(true).area / city.union(true).area >= 0.98


@pytest.mark.parametrize("name", ["districts", "zones"])
def test_files_are_valid_geojson(name, shared):
    schema = json.loads((shared / "standards" / "geojson" / "GeoJSON.json").read_text(encoding="utf-8"))
    jsonschema.validate(collection(name), schema)


@pytest.mark.parametrize("name", ["districts", "zones"])
def test_rings_are_closed_and_wound_as_rfc_7946_asks(name):
    for feature in collection(name)["features"]:
        outline = shape(feature["geometry"])
        assert outline.is_valid
        assert feature["geometry"]["coordinates"][0][0] == feature["geometry"]["coordinates"][0][-1]
        assert outline.equals_exact(shapely.orient_polygons(outline))


@pytest.mark.parametrize("name", ["districts", "zones"])
def test_figures_have_six_decimals_and_say_where_they_come_from(name):
    file = collection(name)
    assert (file["attribution"], file["license"]) == ("© OpenStreetMap contributors", "ODbL-1.0")
    coordinates = shapely.get_coordinates([shape(each["geometry"]) for each in file["features"]])
    assert (coordinates == coordinates.round(6)).all()


def test_there_are_enough_zones_and_bays_in_all_districts():
    assert len(ZONES) >= 151
    assert sum(zone["capacity"]["car"] for zone in FACTS) >= 4_500
    assert Counter(zone["district"] for zone in FACTS).keys() == CITY.keys()
    assert min(Counter(zone["district"] for zone in FACTS).values()) >= 10


def test_every_zone_serves_cars_and_motorbikes():
    assert all(zone["capacity"].keys() == {"car", "motorbike"} for zone in FACTS)
    assert all(min(zone["capacity"].values()) > 0 for zone in FACTS)


def test_data_says_that_capacity_is_illustrative():
    assert {zone["capacity_source"] for zone in FACTS} == {"illustrative"}
    assert "illustrative" in (DATA / "README.md").read_text(encoding="utf-8").lower()


def test_codes_and_names_are_unique_and_numbered_within_the_district():
    assert len({zone["name"] for zone in FACTS}) == len({zone["code"] for zone in FACTS}) == len(FACTS)
    count = Counter(zone["district"] for zone in FACTS)
    wanted = {f"{CITY[code][0]}-{number:03}" for code in count for number in range(1, count[code] + 1)}
    assert {zone["code"] for zone in FACTS} == wanted


def test_zones_are_named_after_their_streets():
    assert all(zone["street"].startswith(("Phố ", "Đường ")) for zone in FACTS)
    assert all(bare(zone["street"]) in zone["name"] for zone in FACTS)


def test_the_twelve_restricted_streets_are_there():
    restricted = {bare(zone["street"]) for zone in FACTS if zone["rate_area"] == "restricted"}
    assert restricted == RESTRICTED


def test_rate_areas_follow_street_and_district():
    for zone in FACTS:
        is_restricted = zone["district"] == "002" and bare(zone["street"]) in RESTRICTED
        assert zone["rate_area"] == ("restricted" if is_restricted else CITY[zone["district"]][2]), zone["code"]


def test_kerb_zones_are_advisory_and_car_parks_strict():
    rules = {(zone["kind"], zone["admission"], zone["max_stay_minutes"]) for zone in FACTS}
    assert rules == {("kerb", "advisory", 720), ("off_street", "strict", 1440)}


def test_strict_zones_are_many_and_some_are_small_enough_to_fill_up():
    strict = [zone for zone in FACTS if zone["admission"] == "strict"]
    assert len(strict) >= 18
    assert len([zone for zone in strict if 4 <= zone["capacity"]["car"] <= 10]) >= 8
    assert len([zone for zone in strict if zone["district"] == "002" and zone["capacity"]["car"] <= 10]) >= 4


def test_kerb_zones_are_strips_as_long_as_their_bays_need():
    for facts, polygon in zip(FACTS, SHAPES, strict=True):
        area = 18.75 if facts["kind"] == "kerb" else 25.0
        assert polygon.area / facts["capacity"]["car"] == pytest.approx(area, rel=0.08), facts["code"]


def test_zones_do_not_overlap():
    tree = shapely.STRtree(SHAPES)
    touching = tree.query(SHAPES, predicate="intersects").T
    assert [(FACTS[i]["code"], FACTS[j]["code"]) for i, j in touching if i < j] == []


def test_every_zone_lies_in_its_district(true_outlines):
    for facts, polygon in zip(FACTS, SHAPES, strict=True):
        assert OUTLINES[facts["district"]].contains(polygon), facts["code"]
        assert true_outlines[facts["district"]].contains(polygon), facts["code"]


def test_zones_lie_beside_the_street_they_are_named_after(hanoi):
    streets: dict[str, list[BaseGeometry]] = {}
    for line in hanoi("streets_core_2025"):
        streets.setdefault(bare(line["properties"].get("name", "")), []).append(metres(line))
    on_known = [(f, s) for f, s in zip(FACTS, SHAPES, strict=True) if bare(f["street"]) in streets]
    assert len(on_known) > 100
    for facts, polygon in on_known:
        assert far(polygon, shapely.union_all(streets[bare(facts["street"])])) <= 30, facts["code"]


def test_streets_have_their_name_in_full(hanoi):
    names = {line["properties"].get("name") for line in hanoi("streets_core_2025")}
    known = {bare(name): name for name in names if name and bare(name) != name}
    assert {zone["street"] for zone in FACTS if bare(zone["street"]) in known} <= names


def test_every_zone_lies_within_60_m_of_a_road(hanoi):
    roads = [metres(line) for line in hanoi("streets_core_2025") + hanoi("roads_2017")]
    tree = shapely.STRtree(roads)
    for facts, polygon in zip(FACTS, SHAPES, strict=True):
        near = tree.query(polygon, predicate="dwithin", distance=60)
        assert far(polygon, shapely.union_all([roads[i] for i in near])) <= 60, facts["code"]


def test_no_zone_lies_across_a_road(hanoi):
    roads = shapely.STRtree([metres(line) for line in hanoi("streets_core_2025")])
    across = roads.query(SHAPES, predicate="intersects")[0]
    assert [FACTS[i]["code"] for i in across] == []


def test_making_the_city_again_gives_the_same_bytes(shared, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("IPARKING_SHARED", str(shared))
    plan = (DATA / "plan.csv").read_bytes()
    (tmp_path / "plan.csv").write_bytes(plan)
    monkeypatch.setattr(make, "HERE", tmp_path)
    make.main()
    for name in ("districts.geojson", "zones.geojson"):
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes(), name
    assert "199 zones" in capsys.readouterr().out
