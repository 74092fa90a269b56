"""Rates from a CSV file of any city, all or nothing.

`read(path)` gives records or raises `ImportRefused` with every bad record of the file;
`apply(connection, records, now)` writes what the database does not have yet, in the caller's transaction.

CSV: UTF-8 with a header; comma, semicolon or tab; one row for each priced line, with the settings of its version in
every row. No other column may stand in the file: a misspelt `daily_cap` would be a price nobody meant.

    version, rate_area, vehicle_class, unit (hour, turn, month), valid_from (RFC 3339 with offset), timezone (IANA)
    part (day, night, full_day), price (VND), source (decree, assumed)
    may be empty or left out: from_unit (else 1), day_start, night_start (HH:MM), night_cap, daily_cap (VND),
        free_minutes (else 0), max_stay_minutes, refund (unused, none; else unused)

A version never changes, because sessions are priced by it. A new price is a new version with a later `valid_from`; it
ends the version in force at that instant, which may not lie in the past.
"""

from billing.imports.reader import Record, read
from billing.imports.report import BadRecord, ImportRefused, Report
from billing.imports.store import apply
from billing.plans import known_areas

__all__ = ["BadRecord", "ImportRefused", "Record", "Report", "apply", "known_areas", "read"]
