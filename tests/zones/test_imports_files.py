"""CSV and GeoJSON as files: every rule that a file as such can break."""

from pathlib import Path

import pytest
import shapely

from tests.zones.import_files import City, collection, zone
from zones import imports
from zones.geometry import LocalPlane
from zones.imports import ImportRefused


@pytest.fixture
def city(tmp_path: Path) -> City:
    return City(tmp_path)


# CSV


HEADER = (
    "code,name,rate_area,kind,admission,max_stay_minutes,capacity_car,capacity_motorbike,capacity_source,geometry\n"
)
TRIANGLE = '"POLYGON ((13.35 52.55, 13.36 52.55, 13.36 52.56, 13.35 52.55))"'
ROW = f"Z-1,Phố Huế 1,inner,kerb,advisory,720,16,40,counted,{TRIANGLE}\n"
POINT = "code,name,rate_area,kind,admission,max_stay_minutes,capacity_car,lon,lat\n"


def test_csv_gives_the_same_record_as_geojson(city):
    outline = {"type": "Polygon", "coordinates": [[[13.35, 52.55], [13.36, 52.55], [13.36, 52.56], [13.35, 52.55]]]}
    assert city.read(HEADER + ROW, name="city.csv") == city.read(collection(zone(outline, street=...)))


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_csv_may_be_cut_by_semicolon_or_tab(city, delimiter):
    content = (POINT + "Z-1,Huế,inner,kerb,strict,60,4,13.35,52.55\n").replace(",", delimiter)
    assert city.read(content, name="city.csv")[0].code == "Z-1"


def test_csv_point_becomes_a_square_with_room_for_its_bays(city):
    (record,) = city.read(POINT + "Z-1,Huế,inner,kerb,strict,60,4,13.35,52.55\n", name="city.csv")
    in_metres = LocalPlane(13.35, 52.55).to_metres(record.geometry)
    assert in_metres.area == pytest.approx(100, rel=0.01)
    assert record.geometry.centroid.distance(shapely.Point(13.35, 52.55)) < 1e-6


def test_csv_with_blank_lines_and_quoted_line_ends_counts_lines_of_the_file(city):
    rows = 'Z-1,"Huế\r\nhai",inner,kerb,strict,60,4,13.35,52.55\r\n\r\nZ-2,Huế,inner,kerb,strict,60,-4,13.35,52.55\r\n'
    found = city.broken(POINT + rows, name="city.csv")
    assert found == [("line 2", "Z-1", "name", "control_character"), ("line 5", "Z-2", "capacity.car", "negative")]


def test_csv_outline_may_be_longer_than_the_default_of_the_reader(city):
    circle = shapely.Point(13.35, 52.55).buffer(0.01, quad_segs=3000).wkt
    row = f'Z-1,Huế,inner,kerb,strict,60,4,4,counted,"{circle}"\n'
    assert len(circle) > 131_072
    assert len(city.read(HEADER + row, name="city.csv")) == 1


def test_csv_cells_that_are_no_numbers_are_refused(city):
    row = "Z-1,Huế,inner,kerb,strict,1e3,4.5,13.35,52.55\nZ-2,Huế,inner,kerb,strict,60,4,x,52.55\n"
    assert city.broken(POINT + row, name="city.csv") == [
        ("line 2", "Z-1", "capacity.car", "not_an_integer"),
        ("line 2", "Z-1", "max_stay_minutes", "not_an_integer"),
        ("line 3", "Z-2", "geometry", "not_a_number"),
    ]


@pytest.mark.parametrize(
    ("position", "rule"),
    [
        ("52.55,13.35", "swapped_axes"),
        ("21.0,105.8", "swapped_axes"),
        ("nan,52.55", "out_of_range"),
        ("13.35,", "not_a_number"),
        ("500,500", "out_of_range"),
        ("0,90", "out_of_range"),
    ],
)
def test_csv_points_with_bad_axes_are_refused(city, position, rule):
    found = city.broken(POINT + f"Z-1,Huế,inner,kerb,strict,60,4,{position}\n", name="city.csv")
    assert found == [("line 2", "Z-1", "geometry", rule)]


def test_csv_that_is_malformed_is_refused(city):
    assert ("line 2", None, None, "wrong_number_of_columns") in city.broken(POINT + "Z-1,Huế\n", name="city.csv")
    assert ("line 2", None, None, "malformed_csv") in city.broken(POINT + 'Z-1,"Huế', name="city.csv")
    assert ("line 1", None, "code", "duplicate_column") in city.broken("code,code\nA,B\n", name="city.csv")
    assert ("file", None, None, "empty_file") in city.broken(POINT, name="city.csv")


@pytest.mark.parametrize(
    ("wkt", "rule"),
    [
        ("POLYGON EMPTY", "empty_polygon"),
        ("POINT (13.35 52.55)", "not_a_polygon"),
        ("POLYGON ((13.35 52.55, 13.36 52.55, 13.36 52.56))", "invalid_polygon"),
        ("POLYGON ((13.35 52.55, 13.36 52.56, 13.36 52.55, 13.35 52.56, 13.35 52.55))", "invalid_polygon"),
        ("POLYGON ((13.35 52.55, NaN 52.55, 13.36 52.56, 13.35 52.55))", "out_of_range"),
        ("SRID=32648;POLYGON ((13.35 52.55, 13.36 52.55, 13.36 52.56, 13.35 52.55))", "wrong_crs"),
        ("POLYGON ((13.35 52.55, 13.36 52.55, 13.36 52.56, 13.35 52.55))\0", "control_character"),
        ("a fence", "invalid_polygon"),
    ],
)
def test_wkt_that_is_no_outline_is_refused(city, wkt, rule):
    found = city.broken(HEADER + f'Z-1,Huế,inner,kerb,strict,60,4,4,counted,"{wkt}"\n', name="city.csv")
    assert found == [("line 2", "Z-1", "geometry", rule)]


# Files that are no files of records


@pytest.mark.parametrize("name", ["city.csv", "city.geojson", "city"])
def test_an_empty_file_is_refused(city, name):
    assert city.broken(b" \n", name=name) == [("file", None, None, "empty_file")]


def test_no_features_are_no_file(city):
    assert city.broken(collection()) == [("file", None, None, "empty_file")]


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ImportRefused, match="unreadable_file"):
        imports.read("wards", tmp_path / "away.csv")


@pytest.mark.parametrize(
    "content", ["{", '{"a":\n nul}', "[" * 3_000, '{"features": NaN}', '{"a": 1e999}', '["\\ud800"]']
)
def test_what_is_not_json_is_refused(city, content):
    assert [rule for *_, rule in city.broken(content)] == ["not_json"]


def test_a_json_error_names_its_line(city):
    (problem,) = city.problems('{"type":\n"FeatureCollection",\n"features" []}')
    assert (problem.where, problem.rule) == ("line 3", "not_json")
    assert "column" in problem.detail


@pytest.mark.parametrize(
    "content", ["[]", "1", "{}", '{"type": "Feature"}', '{"type":"FeatureCollection","features":{}}']
)
def test_what_is_no_feature_collection_is_refused(city, content):
    assert city.broken(content) == [("file", None, None, "not_a_feature_collection")]


@pytest.mark.parametrize("feature", [None, 1, [], {}, {"type": "Point"}, {"type": "Feature", "properties": [1]}])
def test_what_is_no_feature_is_refused(city, feature):
    assert city.broken(collection(zone(), feature)) == [("features[1]", None, None, "not_a_feature")]


def test_bytes_that_are_not_utf8_are_told_by_line_and_offset(city):
    content = b'{"type": "FeatureCollection",\n"name": "Ph\xf4",\n"features": [], "x": "\xff"}'
    found = city.problems(content)
    assert [(each.where, each.rule) for each in found] == [
        ("line 2", "bad_utf8"),
        ("line 3", "bad_utf8"),
        ("file", "empty_file"),
    ]
    assert f"0xf4 at offset {content.index(0xF4)}" in found[0].detail


def test_bad_bytes_do_not_hide_other_bad_records(city):
    content = (
        POINT.encode() + b"Z-1,Hu\xea,inner,kerb,strict,60,4,13.35,52.55\nZ-2,H,inner,bay,strict,60,4,13.35,52.55\n"
    )
    assert city.broken(content, name="city.csv") == [
        ("line 2", None, None, "bad_utf8"),
        ("line 3", "Z-2", "kind", "unknown_kind"),
    ]


@pytest.mark.parametrize(
    ("crs", "is_taken"),
    [
        (None, True),
        ({"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}, True),
        ({"type": "name", "properties": {"name": "EPSG:4326"}}, True),
        ({"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32648"}}, False),
        ({"type": "link"}, False),
        ("EPSG:32648", False),
    ],
)
def test_only_wgs_84_is_taken(city, crs, is_taken):
    content = collection(zone(), crs=crs)
    if is_taken:
        assert len(city.read(content)) == 1
    else:
        assert city.broken(content) == [("file", None, "crs", "wrong_crs")]
