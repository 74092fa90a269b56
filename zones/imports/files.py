"""From bytes to raw records: GeoJSON and CSV, not yet checked field by field."""

import csv
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from zones.imports.report import ImportRefused, Problems, shown

Kind = Literal["districts", "wards", "zones"]

WGS_84 = frozenset(
    {
        "urn:ogc:def:crs:OGC:1.3:CRS84",
        "urn:ogc:def:crs:OGC::CRS84",
        "http://www.opengis.net/def/crs/OGC/1.3/CRS84",
        "urn:ogc:def:crs:EPSG::4326",
        "EPSG:4326",
    }
)
CAPACITY = "capacity_"  # in CSV `capacity_car` is the class `car` of `capacity`


@dataclass(frozen=True, slots=True)
class Raw:
    """A record as the file has it. `geometry` is a GeoJSON object, WKT, or nothing (then perhaps lon and lat)."""

    where: str
    id: object
    properties: dict[str, Any]
    geometry: Any
    is_text: bool  # all values are text (CSV), numbers too


def raw_records(path: Path, problems: Problems) -> Iterator[Raw]:
    """The records of a file. What is wrong with the file as such goes to `problems`; the rest is still read."""
    text = decoded(file_bytes(path), problems)
    if not text.strip():
        problems.add("file", "empty_file", "there is nothing in it")
        return
    yield from geojson_records(text, problems) if is_json(path, text) else csv_records(text, problems)


def is_json(path: Path, text: str) -> bool:
    """By the name of the file; by its first character where the name does not tell."""
    known = {".geojson": True, ".json": True, ".csv": False}
    return known.get(path.suffix.lower(), text.lstrip()[0] in "{[")


def file_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        problems = Problems()
        problems.add("file", "unreadable_file", f"{path.name}: {error.strerror}")
        raise ImportRefused(problems.records) from error


def decoded(data: bytes, problems: Problems) -> str:
    """The text, without a byte order mark; each line that is not UTF-8 is a problem."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        offset = 0
        for number, line in enumerate(data.split(b"\n"), 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                at = offset + error.start
                problems.add(
                    f"line {number}", "bad_utf8", f"byte 0x{line[error.start]:02x} at offset {at} is not UTF-8"
                )
            offset += len(line) + 1
        return data.decode("utf-8-sig", errors="replace")


def geojson_records(text: str, problems: Problems) -> Iterator[Raw]:
    """The features of a FeatureCollection."""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        problems.add(f"line {error.lineno}", "not_json", f"column {error.colno}: {shown(error.msg)}")
        return
    features = document.get("features") if isinstance(document, dict) else None
    if not isinstance(features, list) or document.get("type") != "FeatureCollection":
        problems.add("file", "not_a_feature_collection", "a GeoJSON FeatureCollection is expected")
        return
    check_crs(document.get("crs"), problems)
    if not features:
        problems.add("file", "empty_file", "it has no features")
    for index, feature in enumerate(features):
        yield from feature_record(f"features[{index}]", feature, problems)


def check_crs(crs: Any, problems: Problems) -> None:
    """The `crs` member of old GeoJSON may only say what RFC 7946 takes for granted."""
    properties = crs.get("properties") if isinstance(crs, dict) else None
    name = properties.get("name") if isinstance(properties, dict) else None
    if crs is not None and name not in WGS_84:
        problems.add("file", "wrong_crs", f"{shown(name)} is not WGS 84, longitude first", field="crs")


def feature_record(where: str, feature: Any, problems: Problems) -> Iterator[Raw]:
    properties = (feature.get("properties") or {}) if isinstance(feature, dict) else None
    if not isinstance(properties, dict) or feature.get("type") != "Feature":
        problems.add(where, "not_a_feature", "a GeoJSON Feature with properties is expected")
        return
    code = properties.get("code", properties.get("ward_code", feature.get("id")))
    yield Raw(where, code, properties, feature.get("geometry"), False)


def csv_records(text: str, problems: Problems) -> Iterator[Raw]:
    """The rows of a CSV file, by the names in its header. `where` is the line on which a row begins."""
    csv.field_size_limit(sys.maxsize)  # an outline in WKT is longer than the default of 128 KiB
    delimiter = max(",;\t", key=text.lstrip().split("\n", 1)[0].count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    found, begins = False, 1
    try:
        for row in rows:
            where, begins = f"line {begins}", rows.line_num + 1
            if not header:
                header = [name.strip().lower() for name in row]
                check_header(where, header, problems)
            elif row:
                found = True
                yield from row_record(where, header, row, problems)
    except csv.Error as error:
        problems.add(f"line {begins}", "malformed_csv", str(error))
    if not found:
        problems.add("file", "empty_file", "it has no rows")


def check_header(where: str, header: list[str], problems: Problems) -> None:
    for name in {name for name in header if name and header.count(name) > 1}:
        problems.add(where, "duplicate_column", "two columns have this name", field=shown(name))


def row_record(where: str, header: list[str], row: list[str], problems: Problems) -> Iterator[Raw]:
    """One row; an empty cell counts as left out."""
    if len(row) != len(header):
        problems.add(where, "wrong_number_of_columns", f"{len(row)} instead of {len(header)}")
        return
    cells = {name: cell.strip() for name, cell in zip(header, row, strict=True) if cell.strip()}
    geometry = cells.pop("geometry", None)
    capacity = {
        n.removeprefix(CAPACITY): c for n, c in cells.items() if n.startswith(CAPACITY) and n != "capacity_source"
    }
    if capacity:
        cells["capacity"] = capacity  # type: ignore[assignment]
    yield Raw(where, cells.get("code", cells.get("ward_code")), cells, geometry, True)
