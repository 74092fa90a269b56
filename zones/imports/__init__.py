"""Districts, wards and zones from files of any city, all or nothing.

`read(kind, path, …)` gives records or raises `ImportRefused` with every bad record of the file;
`apply(kind, connection, records, now)` writes what differs from the database, in the caller's transaction.

GeoJSON: a FeatureCollection of polygons in WGS 84, longitude first (RFC 7946).
CSV: UTF-8 with a header; comma, semicolon or tab; the outline in `geometry` as WKT, longitude first. A zone may have
    `lon` and `lat` instead: it becomes a square around that point, with 25 m² for each car bay.

districts: code, name; may have joined (a date).
wards: code (or ward_code), name; may have district (or district_code, old_district_code).
zones: code, name, rate_area, kind, admission, max_stay_minutes, capacity {car, motorbike} (in CSV capacity_car,
    capacity_motorbike); may have street (or else it is the name), district (or else it is where the zone lies),
    capacity_source.

Anything else in the file is ignored. A zone must lie, with at least half its area, in its district.
"""

from zones.imports.files import Kind
from zones.imports.reader import read
from zones.imports.report import BadRecord, ImportRefused, Report
from zones.imports.store import apply, current_districts

__all__ = ["BadRecord", "ImportRefused", "Kind", "Report", "apply", "current_districts", "read"]
