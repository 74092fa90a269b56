"""What schemas of several resources share: instants, money, identifiers, refusals as documents."""

import re
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from marshmallow import Schema, ValidationError, fields, validate

from zones.terms import KNOWN_CLASSES

HANOI = ZoneInfo("Asia/Ho_Chi_Minh")
# Rates, partitions and UUIDv7 all reach this far; beyond it lies a mistyped year.
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
# A movement of more than this is a mistyped one.
MAX_AMOUNT = 1_000_000_000


def local(instant: datetime | None) -> str | None:
    """RFC 3339 with Hanoi's offset, to the millisecond, which is as exact as a session is."""
    return None if instant is None else instant.astimezone(HANOI).isoformat(timespec="milliseconds")


def money(amount: int) -> dict[str, Any]:
    """An amount as the interface shows it."""
    return {"amount": amount, "currency": "VND"}


class Instant(fields.AwareDateTime):
    """RFC 3339 with an offset, between 2000 and 2100; UTC inside."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("metadata", {}).setdefault("example", "2026-10-14T08:00:00+07:00")
        super().__init__(format="iso", **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        if not isinstance(value, str) or len(value) > 40 or not value[:1].isdecimal() or len(value) < 17:
            raise ValidationError("must be an RFC 3339 instant with an offset")
        try:
            instant = super()._deserialize(value, attr, data, **kwargs)
            inside = EARLIEST <= instant < LATEST
        except (ValidationError, OverflowError, ValueError):
            raise ValidationError("must be an RFC 3339 instant with an offset") from None
        if not inside:
            raise ValidationError("must lie between 2000 and 2100")
        return instant.astimezone(UTC)


_CONTROL = re.compile("[\x00-\x1f\ud800-\udfff]")


class PlainText(fields.String):
    """Text without control characters (PostgreSQL keeps no NUL) and without unpaired surrogates."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if _CONTROL.search(text):
            raise ValidationError("must not contain control characters")
        return str(text)


def zone_code(**kwargs: Any) -> PlainText:
    """A zone's code."""
    kwargs.setdefault("metadata", {"example": "HK-001"})
    return PlainText(validate=validate.Length(1, 40), **kwargs)


def plate(**kwargs: Any) -> PlainText:
    """A plate as people type it; the plate grammar decides later, with an error of its own."""
    kwargs.setdefault("metadata", {"example": "30A-123.45"})
    return PlainText(validate=validate.Length(max=64), **kwargs)


def vehicle_class(**kwargs: Any) -> fields.String:
    """A vehicle class that the interface knows (`large` is known, but not served)."""
    return fields.String(validate=validate.OneOf(KNOWN_CLASSES), **kwargs)


class MoneySchema(Schema):
    """Whole đồng."""

    amount = fields.Integer(required=True, metadata={"example": 25000})
    currency = fields.String(required=True, validate=validate.Equal("VND"), metadata={"example": "VND"})


def amount(**kwargs: Any) -> fields.Integer:
    """Whole đồng that somebody asks to move: above 0, and no more than one movement ever is."""
    limits = validate.Range(1, MAX_AMOUNT)
    return fields.Integer(strict=True, validate=limits, metadata={"example": 50000}, **kwargs)


def words(longest: int, example: str, **kwargs: Any) -> PlainText:
    """Text that says something, of at most so many characters."""
    limits = [validate.Length(1, longest), validate.Regexp(r".*\S", error="must say something")]
    return PlainText(validate=limits, metadata={"example": example}, **kwargs)


def reason(**kwargs: Any) -> PlainText:
    """Why, in the words of who asks or decides."""
    return words(500, "Trả nhầm xe", **kwargs)


class FieldErrorSchema(Schema):
    """One field at fault."""

    field = fields.String(required=True)
    rule = fields.String(required=True)


class ProblemSchema(Schema):
    """RFC 9457, with `code` (a fact that programs can read) and `errors` (the fields at fault)."""

    type = fields.String(required=True)
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String()
    code = fields.String(required=True)
    errors = fields.List(fields.Nested(FieldErrorSchema))
