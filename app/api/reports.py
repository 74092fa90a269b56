"""Reports for planners: occupancy and revenue by zone or district and time bucket, as JSON or CSV."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import psycopg
from flask import Response
from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from app.api.blueprint import Blueprint, answer, next_link
from app.api.fields import Instant, MoneySchema, PlainText, local, money, zone_code
from app.api.tables import CSV, csv_answer, is_csv_wanted
from app.errors import BadParameter
from app.resources import resources
from billing.refunds import GIVEN_BACK
from zones import errors, metrics
from zones.metrics import Bucket, Cell, Occupancy, Page, Position, Question, Revenue
from zones.terms import VEHICLE_CLASSES

reports = Blueprint("reports", __name__, url_prefix="/v1/reports", description="Figures for city planners")
LARGEST_PAGE = 10_000
T = TypeVar("T")
# A plus sign that was not escaped arrives as a space.
UNESCAPED_OFFSET = re.compile(r"(.*T.*) (\d\d:\d\d)")
# How the document says that an answer comes as CSV as well.
CSV_TOO = {"200": {"content": {CSV: {"schema": {"type": "string"}}}}}


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
    """Which zones, which span, how finely, and where the page begins."""

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
    """What rows of all reports begin with. `zone` is null where a row is about a whole district."""

    district = fields.String(required=True)
    zone = fields.String(required=True, allow_none=True)
    vehicle_class = fields.String(required=True, validate=validate.OneOf(VEHICLE_CLASSES))
    from_ = Instant(required=True, data_key="from")
    to = Instant(required=True)
    complete = fields.Boolean(required=True)


class OccupancyRowSchema(RowSchema):
    """How full a zone or district was in a bucket."""

    occupied_minutes = fields.Float(required=True)
    capacity_minutes = fields.Float(required=True)
    occupancy = fields.Float(required=True, allow_none=True)
    peak_occupied = fields.Integer(required=True)
    arrivals = fields.Integer(required=True)
    departures = fields.Integer(required=True)


class RevenueRowSchema(RowSchema):
    """`sessions` ended in the bucket, which is when they are charged: `revenue`, tax in it. `refunded` was given back
    in the bucket, of these or earlier sessions; `net` is the rest, below 0 where more was given back than charged."""

    sessions = fields.Integer(required=True)
    revenue = fields.Nested(MoneySchema, required=True)
    refunded = fields.Nested(MoneySchema, required=True)
    net = fields.Nested(MoneySchema, required=True)


class ReportSchema(Schema):
    """Which data the rows are made from, where the zones' capacities come from, and when; a `Link` header leads to the
    next page. Sessions that began in one of the `archived_months` (`2025-03`) are not counted any more."""

    source = fields.String(required=True, validate=validate.Equal("sessions"))
    capacity_sources = fields.List(fields.String(), required=True)
    as_of = Instant(required=True)
    archived_months = fields.List(fields.String(), required=True)


class OccupancySchema(ReportSchema):
    """How full."""

    rows = fields.List(fields.Nested(OccupancyRowSchema), required=True)


class RevenueSchema(ReportSchema):
    """How much."""

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
    amounts = {name: money(getattr(row, name)) for name in ("revenue", "refunded", "net")}
    return row_json(row.bucket, row.cell) | {"sessions": row.sessions, **amounts}


def report(make: Callable[[psycopg.Connection, Question], Page[T]], wanted: dict[str, Any]) -> tuple[Question, Page[T]]:
    """What a valid query asks, and its page, as of the instant up to which the database that was asked knows all."""

    def ask(connection: psycopg.Connection, as_of: datetime) -> tuple[Question, Page[T]]:
        question = Question(now=as_of, **wanted)
        return question, make(connection, question)

    return resources().read(ask)


def page_of(
    question: Question, page: Page[Any], schema: type[RowSchema], describe: Callable[[Any], dict[str, Any]]
) -> Response:
    """A page as JSON or CSV, whichever is wanted, with the link to the next one."""
    rows = [describe(row) for row in page.rows]
    headers = {"Vary": "Accept"} | (next_link(cursor_of(page.next)) if page.next else {})
    if is_csv_wanted():
        return csv_answer(schema, rows, headers)
    facts = {
        "source": "sessions",
        "capacity_sources": page.capacity_sources,
        "as_of": local(question.now),
        "archived_months": [f"{month:%Y-%m}" for month in page.archived_months],
    }
    return answer(facts | {"rows": rows}, headers=headers)


def cursor_of(position: Position) -> str:
    """A page's beginning as `Cursor` reads it."""
    return f"{position.start.astimezone(UTC).isoformat()},{position.place},{position.vehicle_class}"


@reports.route("/occupancy")
@reports.allow("planner", "operator")
@reports.arguments(ReportQuery, location="query", error_status_code=400)
@reports.doc(responses=CSV_TOO)
@reports.response(200, OccupancySchema)
@reports.refusals(BadParameter, errors.UnknownZone, errors.UnknownDistrict)
def occupancy(wanted: dict[str, Any]) -> Response:
    """How full zones or districts were, bucket by bucket.

    Vehicles count from their start until their place was given back, and until now while they stand; capacity is
    today's, over the whole bucket. `occupancy` is occupied ÷ capacity minutes: may pass 1, null without capacity or
    before the bucket begins. `complete` is false while late stops may still change a row: until 15 minutes after its
    end.

    Buckets begin with Hanoi's hours and days; the first and the last are cut to `from` and `to` (half-open), which are
    at most 31 days apart by 15m and 1h, 366 by 1d. With `Accept: text/csv` the rows come as CSV. A `Link` header leads
    to the next page.
    """
    question, page = report(metrics.occupancy, wanted)
    return page_of(question, page, OccupancyRowSchema, occupancy_json)


@reports.route("/revenue")
@reports.allow("planner", "operator")
@reports.arguments(ReportQuery, location="query", error_status_code=400)
@reports.doc(responses=CSV_TOO)
@reports.response(200, RevenueSchema)
@reports.refusals(BadParameter, errors.UnknownZone, errors.UnknownDistrict)
def revenue(wanted: dict[str, Any]) -> Response:
    """What was charged in zones or districts, and what was given back, bucket by bucket; tax is in all amounts.

    A session is charged when it ends: stopped, or its time over in an advisory zone. `sessions` counts those, and
    `revenue` is what they were charged. `refunded` is what refunds and voids gave back in the bucket, at the instant
    when they were decided, whenever the session was charged; `net` is `revenue` less `refunded`. Over all time, `net`
    is what the ledger has of revenue and VAT, once all that is over is charged: a session that ran out, or was stopped
    late, is booked up to 15 minutes behind its end. What is given back of a session whose month is archived is not
    subtracted: neither side of it is here. Buckets, pages, `complete` and CSV are as for occupancy.
    """
    question, page = report(partial(metrics.revenue, refunds=GIVEN_BACK), wanted)
    return page_of(question, page, RevenueRowSchema, revenue_json)
