"""Reports for planners: occupancy and revenue by zone or district and time bucket, as JSON or CSV."""

import csv
import io
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from flask import Response, request
from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from app.api.blueprint import Blueprint, answer, next_link
from app.api.fields import Instant, MoneySchema, PlainText, local, money, zone_code
from app.errors import BadParameter
from app.resources import resources
from zones import errors, metrics
from zones.metrics import Bucket, Cell, Occupancy, Page, Position, Question, Revenue
from zones.models import VEHICLE_CLASSES

reports = Blueprint("reports", __name__, url_prefix="/v1/reports", description="Figures for city planners")
CSV = "text/csv"
LARGEST_PAGE = 10_000
# A plus sign that was not escaped arrives as a space.
UNESCAPED_OFFSET = re.compile(r"(.*T.*) (\d\d:\d\d)")
# What a spreadsheet would take for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


class QueryInstant(Instant):
    """An instant in an address; the plus of its offset may have been left unescaped."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        match = UNESCAPED_OFFSET.fullmatch(value) if isinstance(value, str) else None
        return super()._deserialize(f"{match[1]}+{match[2]}" if match else value, attr, data, **kwargs)


class Cursor(fields.Field[Position]):
    """Where a page begins: bucket, place and class, as the last page's Link had it."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Position:
        start, _, rest = str(value).partition(",")
        place, comma, vehicle_class = rest.rpartition(",")
        if not comma:
            raise ValidationError("must come from a Link header")
        return Position(QueryInstant().deserialize(start), place, vehicle_class)


class ReportQuery(Schema):
    """`from` and `to` are half-open; at most 31 days by 15m and 1h, 366 days by 1d. Buckets begin with Hanoi's hours and
    days; the first and the last are cut to `from` and `to`."""

    start = QueryInstant(required=True, data_key="from")
    end = QueryInstant(required=True, data_key="to")
    bucket = fields.String(required=True, validate=validate.OneOf(metrics.BUCKETS))
    by = fields.String(load_default="zone", validate=validate.OneOf(metrics.GROUPS))
    zone = zone_code()
    district = PlainText(validate=validate.Length(1, 40), metadata={"example": "002"})
    vehicle_class = fields.String(validate=validate.OneOf(VEHICLE_CLASSES))
    first = Cursor(data_key="cursor", metadata={"type": "string", "example": "2026-10-14T08:00:00+07:00,HK-001,car"})
    limit = fields.Integer(load_default=LARGEST_PAGE, validate=validate.Range(1, LARGEST_PAGE))

    @validates_schema
    def check_span(self, data: dict[str, Any], **kwargs: Any) -> None:
        """Refuse a span that is empty or longer than its bucket allows."""
        span, longest = data["end"] - data["start"], metrics.LONGEST[data["bucket"]]
        if data["end"] <= data["start"]:
            raise ValidationError("must be later than from", "to")
        if span > longest:
            raise ValidationError(f"at most {longest.days} days after from, by {data['bucket']}", "to")


class RowSchema(Schema):
    """`zone` is null where a row is about a whole district. `complete` is false while figures may still change: until 15
    minutes after `to`, when the last late stops have come in."""

    district = fields.String(required=True)
    zone = fields.String(required=True, allow_none=True)
    vehicle_class = fields.String(required=True, validate=validate.OneOf(VEHICLE_CLASSES))
    from_ = Instant(required=True, data_key="from")
    to = Instant(required=True)
    complete = fields.Boolean(required=True)


class OccupancyRowSchema(RowSchema):
    """`occupancy` is occupied ÷ capacity minutes: may pass 1, null without capacity or before the bucket begins.
    Vehicles count up to now; capacity is today's, over the whole bucket."""

    occupied_minutes = fields.Float(required=True)
    capacity_minutes = fields.Float(required=True)
    occupancy = fields.Float(required=True, allow_none=True)
    peak_occupied = fields.Integer(required=True)
    arrivals = fields.Integer(required=True)
    departures = fields.Integer(required=True)


class RevenueRowSchema(RowSchema):
    """`sessions` ended in the bucket, which is when they are charged."""

    sessions = fields.Integer(required=True)
    revenue = fields.Nested(MoneySchema, required=True)


class ReportSchema(Schema):
    """Which data the rows are made from, and when; a `Link` header leads to the next page."""

    source = fields.String(required=True, validate=validate.Equal("sessions"))
    as_of = Instant(required=True)


class OccupancySchema(ReportSchema):
    """`capacity_sources` says where the capacities come from."""

    capacity_sources = fields.List(fields.String(), required=True)
    rows = fields.List(fields.Nested(OccupancyRowSchema), required=True)


class RevenueSchema(ReportSchema):
    """Whole đồng."""

    rows = fields.List(fields.Nested(RevenueRowSchema), required=True)


def row_json(bucket: Bucket, cell: Cell) -> dict[str, Any]:
    """What rows of all reports begin with."""
    return {
        "district": cell.district,
        "zone": cell.zone,
        "vehicle_class": cell.vehicle_class,
        "from": local(bucket.start),
        "to": local(bucket.end),
        "complete": bucket.is_complete,
    }


def occupancy_json(row: Occupancy) -> dict[str, Any]:
    """A row as OccupancyRowSchema documents it."""
    return row_json(row.bucket, row.cell) | {
        "occupied_minutes": metrics.to_minutes(row.occupied_us),
        "capacity_minutes": metrics.to_minutes(row.capacity_us),
        "occupancy": None if row.ratio is None else round(row.ratio, 6),
        "peak_occupied": row.peak,
        "arrivals": row.arrivals,
        "departures": row.departures,
    }


def revenue_json(row: Revenue) -> dict[str, Any]:
    """A row as RevenueRowSchema documents it."""
    return row_json(row.bucket, row.cell) | {"sessions": row.sessions, "revenue": money(row.revenue)}


def cells_of(row: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A row's columns for CSV: an object becomes a column for each of its members."""
    for name, value in row.items():
        if isinstance(value, dict):
            yield from ((f"{name}_{member}", inner) for member, inner in value.items())
        else:
            yield name, "true" if value is True else "false" if value is False else value


def escaped(value: Any) -> Any:
    """A text that a spreadsheet would run is quoted, so that it stays a text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def as_csv(columns: list[str], rows: list[dict[str, Any]]) -> str:
    """RFC 4180, with a header line; an unknown value is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([escaped(value) for _, value in cells_of(row)] for row in rows)
    return text.getvalue()


def columns_of(schema: type[RowSchema]) -> list[str]:
    """The columns that a report has in CSV, in the order of its rows."""
    return [column for name, field in schema().fields.items() for column in _columns(field.data_key or name, field)]


def _columns(name: str, field: fields.Field) -> list[str]:
    return [f"{name}_{inner}" for inner in field.schema.fields] if isinstance(field, fields.Nested) else [name]
