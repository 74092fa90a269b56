"""Reading districts, wards and zones: every rule that a record can break."""

from pathlib import Path

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from tests.zones.import_files import RATE_AREAS, City, area, collection, square, zone
from zones import imports
from zones.imports import ImportRefused


@pytest.fixture
def city(tmp_path: Path) -> City:
    return City(tmp_path)


# What is read


def test_a_zone_is_read_with_all_its_facts(city):
    (record,) = city.read(collection(zone()))
    assert (record.code, record.name, record.street, record.district_code) == ("Z-1", "Phố Huế 1", "Phố Huế", "A")
    assert (record.rate_area, record.kind, record.admission) == ("inner", "kerb", "advisory")
    assert (record.max_stay_minutes, record.capacity) == (720, {"car": 16, "motorbike": 40})
    assert record.capacity_source == "counted"
    assert record.geometry.equals(shapely.geometry.shape(square()))


def test_street_district_and_source_may_be_left_out(city):
    (record,) = city.read(collection(zone(square(13.45), street=..., district=..., capacity_source=...)))
    assert (record.street, record.district_code, record.capacity_source) == ("Phố Huế 1", "B", "imported")


def test_a_zone_across_a_border_belongs_where_most_of_it_lies(city):
    (record,) = city.read(collection(zone(square(13.3996), district=...)))
    assert record.district_code == "B"


def test_what_the_service_answers_can_be_imported(city):
    answered = zone(availability={"car": {"occupied": 3, "version": 812}}, updated_at="2026-11-23T07:00:00+07:00")
    assert city.read(collection(answered, next="…")) == city.read(collection(zone()))


def test_districts_and_wards_are_read(city):
    (district,) = city.read(collection(area(joined="2018-01-01")), "districts")
    assert (district.code, district.name, district.joined.isoformat()) == ("A", "Ba Đình", "2018-01-01")
    assert district.geometry.geom_type == "MultiPolygon"
    (ward,) = city.read(collection(area(code=..., ward_code="00004", old_district_code="A")), "wards")
    assert (ward.code, ward.name, ward.district_code) == ("00004", "Ba Đình", "A")
    (ward,) = city.read(collection(area(old_district_code=None)), "wards")
    assert ward.district_code is None


def test_the_shared_wards_can_be_imported(shared):
    records = imports.read("wards", shared / "data" / "hanoi" / "wards_2025.geojson")
    assert len(records) == 126
    assert {each.district_code for each in records} > {"001", "002", None}


def test_names_in_unicode_are_kept_and_composed(city):
    decomposed = "Phố Đội Cấn 🅿 停车"
    (record,) = city.read(collection(zone(name=f"  {decomposed} ", street="Đường ٣")))
    assert (record.name, record.street) == ("Phố Đội Cấn 🅿 停车", "Đường ٣")


def test_byte_order_mark_is_no_content(city):
    assert len(city.read(b"\xef\xbb\xbf" + collection(zone()))) == 1


def test_an_outline_is_the_same_from_any_corner_in_any_direction_and_height(city):
    corners = square()["coordinates"][0]
    turned = [*corners[2:-1], *corners[:3]]
    other_ways = [turned, corners[::-1], [[lon, lat, 12.5] for lon, lat in corners]]
    read = [city.read(collection(zone({"type": "Polygon", "coordinates": [ring]})))[0] for ring in other_ways]
    multi = zone({"type": "MultiPolygon", "coordinates": [square()["coordinates"]]})
    assert {each.geometry.wkb for each in [*read, *city.read(collection(multi))]} == {
        city.read(collection(zone()))[0].geometry.wkb
    }
    assert shapely.is_ccw(read[0].geometry.exterior)


# Outlines


BOW_TIE = [[13.35, 52.55], [13.36, 52.56], [13.36, 52.55], [13.35, 52.56], [13.35, 52.55]]
RING = square()["coordinates"][0]


@pytest.mark.parametrize(
    ("geometry", "rule"),
    [
        ({"type": "Polygon", "coordinates": []}, "empty_polygon"),
        ({"type": "Polygon", "coordinates": [[]]}, "empty_polygon"),
        ({"type": "MultiPolygon", "coordinates": []}, "empty_polygon"),
        ({"type": "Polygon"}, "invalid_polygon"),
        ({"type": "Polygon", "coordinates": [BOW_TIE]}, "invalid_polygon"),
        ({"type": "Polygon", "coordinates": [RING[:-1]]}, "invalid_polygon"),
        ({"type": "Polygon", "coordinates": [[RING[0], RING[1], RING[0]]]}, "invalid_polygon"),
        ({"type": "Polygon", "coordinates": [[RING[0]] * 5]}, "invalid_polygon"),
        ({"type": "Polygon", "coordinates": RING}, "invalid_polygon"),
        ({"type": "Polygon", "coordinates": [[["13.35", "52.55"]] * 4]}, "invalid_polygon"),
        ({"type": "Polygon", "coordinates": [[[True, False]] * 4]}, "invalid_polygon"),
        ({"type": "Polygon", "coordinates": [[[13.35]] * 4]}, "invalid_polygon"),
        ({"type": "MultiPolygon", "coordinates": [[RING], None]}, "invalid_polygon"),
        ({"type": "Point", "coordinates": [13.35, 52.55]}, "not_a_polygon"),
        ({"type": "LineString", "coordinates": RING}, "not_a_polygon"),
        ({"type": "GeometryCollection", "geometries": []}, "not_a_polygon"),
        ("POLYGON EMPTY", "not_a_polygon"),
        ([], "not_a_polygon"),
        ({"type": ["Polygon"]}, "not_a_polygon"),
        (square(513.35, 552.55), "out_of_range"),
        (square(587_000, 2_325_000), "out_of_range"),
        (square(21.02, 105.85), "swapped_axes"),
        (square(52.55, 13.35), "swapped_axes"),
        (square(13.25), "outside_every_district"),
        (square(-13.35, -52.55), "outside_every_district"),
        (square(13.3, 52.45, 0.25), "outside_every_district"),
    ],
)
def test_a_bad_outline_is_refused(city, geometry, rule):
    assert city.broken(collection(zone(geometry))) == [("features[0]", "Z-1", "geometry", rule)]


def test_no_outline_is_a_missing_field(city):
    feature = zone() | {"geometry": None}
    assert city.broken(collection(feature)) == [("features[0]", "Z-1", "geometry", "missing_field")]
    del feature["geometry"]
    assert city.broken(collection(feature)) == [("features[0]", "Z-1", "geometry", "missing_field")]


def test_a_zone_in_two_pieces_is_refused(city):
    pieces = {"type": "MultiPolygon", "coordinates": [square()["coordinates"], square(13.37)["coordinates"]]}
    assert city.broken(collection(zone(pieces))) == [("features[0]", "Z-1", "geometry", "not_a_polygon")]
    assert len(city.read(collection(area(pieces)), "wards")[0].geometry.geoms) == 2


def test_a_district_with_swapped_axes_is_refused(city):
    found = city.broken(collection(area(square(21.02, 105.85))), "districts")
    assert found == [("features[0]", "A", "geometry", "swapped_axes")]


def test_a_zone_must_lie_in_the_district_that_it_names(city):
    assert city.broken(collection(zone(district="B"))) == [("features[0]", "Z-1", "district", "wrong_district")]
    assert city.broken(collection(zone(district="C"))) == [("features[0]", "Z-1", "district", "unknown_district")]


def test_zones_need_districts(tmp_path):
    file = tmp_path / "zones.geojson"
    file.write_bytes(collection(zone()))
    with pytest.raises(ImportRefused, match="no_districts"):
        imports.read("zones", file, rate_areas=RATE_AREAS, districts={})


# Fields


@pytest.mark.parametrize(
    ("changes", "field", "rule"),
    [
        ({"code": ...}, "code", "missing_field"),
        ({"code": "  "}, "code", "missing_field"),
        ({"code": 7}, "code", "not_text"),
        ({"code": "a/b"}, "code", "invalid_code"),
        ({"code": "{HK}"}, "code", "invalid_code"),
        ({"code": "Đ-1"}, "code", "invalid_code"),
        ({"code": "Z" * 41}, "code", "invalid_code"),
        ({"name": ...}, "name", "missing_field"),
        ({"name": None}, "name", "missing_field"),
        ({"name": "Ph\0"}, "name", "control_character"),
        ({"name": "a\u2028b"}, "name", "control_character"),
        ({"name": "a" * 201}, "name", "too_long"),
        ({"name": "a" * 1_000_000}, "name", "too_long"),
        ({"street": ["Phố Huế"]}, "street", "not_text"),
        ({"rate_area": ...}, "rate_area", "missing_field"),
        ({"rate_area": "centre"}, "rate_area", "unknown_rate_area"),
        ({"kind": "garage"}, "kind", "unknown_kind"),
        ({"kind": ...}, "kind", "missing_field"),
        ({"admission": "none"}, "admission", "unknown_admission"),
        ({"max_stay_minutes": ...}, "max_stay_minutes", "missing_field"),
        ({"max_stay_minutes": 0}, "max_stay_minutes", "out_of_range"),
        ({"max_stay_minutes": 10**9}, "max_stay_minutes", "out_of_range"),
        ({"max_stay_minutes": "720"}, "max_stay_minutes", "not_an_integer"),
        ({"capacity": ...}, "capacity", "missing_field"),
        ({"capacity": {}}, "capacity", "not_an_object"),
        ({"capacity": 16}, "capacity", "not_an_object"),
        ({"capacity": {"car": -1}}, "capacity.car", "negative"),
        ({"capacity": {"car": 1.5}}, "capacity.car", "not_an_integer"),
        ({"capacity": {"car": True}}, "capacity.car", "not_an_integer"),
        ({"capacity": {"car": None}}, "capacity.car", "missing_field"),
        ({"capacity": {"car": 10**30}}, "capacity.car", "out_of_range"),
        ({"capacity": {"large": 3}}, "capacity.large", "class_not_served"),
        ({"capacity": {"bus": 3}}, "capacity.bus", "unknown_class"),
        ({"capacity": {"Car": 3}}, "capacity.Car", "unknown_class"),
        ({"capacity_source": ""}, "capacity_source", "missing_field"),
        ({"district": 2}, "district", "not_text"),
    ],
)
def test_a_bad_field_is_refused(city, changes, field, rule):
    assert [(each.field, each.rule) for each in city.problems(collection(zone(**changes)))] == [(field, rule)]


def test_a_whole_number_may_be_written_with_a_point(city):
    assert city.read(collection(zone(capacity={"car": 16.0})))[0].capacity == {"car": 16}


def test_a_capacity_of_zero_is_taken(city):
    assert city.read(collection(zone(capacity={"car": 0})))[0].capacity == {"car": 0}


@pytest.mark.parametrize("day", ["1.1.2018", "2018-02-30", "soon"])
def test_a_date_that_is_none_is_refused(city, day):
    assert city.broken(collection(area(joined=day)), "districts") == [("features[0]", "A", "joined", "not_a_date")]


@pytest.mark.parametrize("kind", ["districts", "wards", "zones"])
def test_a_code_may_come_only_once(city, kind):
    one, other = (zone(), zone()) if kind == "zones" else (area(), area())
    (problem,) = city.problems(collection(one, other), kind)
    assert (problem.where, problem.field, problem.rule) == ("features[1]", "code", "duplicate_code")
    assert "features[0]" in problem.detail


def test_the_report_has_every_bad_record_and_every_bad_field(city):
    found = city.broken(
        collection(
            zone(code="Z-1"),
            zone(code="Z-2", kind="garage", capacity={"car": -1, "bus": 2}),
            zone(square(52.55, 13.35), code="Z-3", rate_area="centre"),
            {"type": "Feature"},
            zone(code="Z-1"),
        )
    )
    assert found == [
        ("features[1]", "Z-2", "capacity.car", "negative"),
        ("features[1]", "Z-2", "capacity.bus", "unknown_class"),
        ("features[1]", "Z-2", "kind", "unknown_kind"),
        ("features[2]", "Z-3", "geometry", "swapped_axes"),
        ("features[2]", "Z-3", "rate_area", "unknown_rate_area"),
        *[("features[3]", None, name, "missing_field") for name in MISSING],
        ("features[4]", "Z-1", "code", "duplicate_code"),
    ]


MISSING = ("name", "capacity", "geometry", "code", "rate_area", "kind", "admission", "max_stay_minutes")


def test_a_report_stays_short_and_printable(city):
    (problem,) = city.problems(collection(zone(rate_area="\u202e" + "x" * 199)))
    assert len(str(problem)) < 250
    assert str(problem).isprintable()
    with pytest.raises(ImportRefused) as refused:
        city.read(collection(zone(rate_area="x")))
    assert refused.value.as_dict() == {
        "records": [
            {
                "where": "features[0]",
                "id": "Z-1",
                "field": "rate_area",
                "rule": "unknown_rate_area",
                "detail": "x is not one of inner, outer",
            }
        ]
    }


# Properties

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
fields_of_a_zone = st.sampled_from([*zone()["properties"], "geometry"])


@given(field=fields_of_a_zone, value=json_values)
def test_any_value_in_any_field_is_read_or_refused(tmp_path_factory, field, value):
    feature = zone(**({} if field == "geometry" else {field: value}))
    if field == "geometry":
        feature["geometry"] = value
    found = City(tmp_path_factory.getbasetemp()).refusals(collection(feature))
    assert all(str(each).isprintable() for each in found)


@given(content=st.binary(max_size=200), name=st.sampled_from(["x.geojson", "x.csv", "x"]))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content, name):
    with pytest.raises(ImportRefused):
        City(tmp_path_factory.getbasetemp()).read(content, name=name)


@given(lon=st.floats(13.31, 13.38), lat=st.floats(52.51, 52.58), side=st.floats(0.0001, 0.01))
def test_a_zone_within_a_district_is_found_there_and_swapped_it_is_seen_to_be(tmp_path_factory, lon, lat, side):
    city = City(tmp_path_factory.getbasetemp())
    assert city.read(collection(zone(square(lon, lat, side), district=...)))[0].district_code == "A"
    assert city.broken(collection(zone(square(lat, lon, side), district=...)))[0][-1] == "swapped_axes"
