"""Receipts: a driver's own, as JSON or as a PDF."""

from typing import Any
from uuid import UUID

from flask import Response, g, request
from marshmallow import Schema, fields, validate

from app import receipts as issuing
from app.api.blueprint import Blueprint, answer, next_link
from app.api.fields import Instant, MoneySchema, local, vehicle_class, zone_code
from app.api.quotes import LineSchema
from app.api.sessions import ID_PARAMETER, read_id
from app.errors import BadParameter
from app.resources import resources
from billing.errors import FontMissing, UnknownReceipt
from billing.receipts import pdf, store
from billing.receipts.store import Receipt
from billing.receipts.words import LANGUAGES
from zones import errors

receipts = Blueprint("receipts", __name__, url_prefix="/v1", description="Receipts of the driver who asks")
PAGE = 50
JSON, PDF = "application/json", "application/pdf"
RECEIPT_ID = {"name": "receipt_id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
PDF_CONTENT = {"content": {PDF: {"schema": {"type": "string", "format": "binary"}}}}
NOT_CHANGED = {"description": "It is the one with the ETag of If-None-Match"}
KINDS = ("receipt", "credit_note")


class PageQuery(Schema):
    """Where the page begins."""

    cursor = fields.UUID()
    limit = fields.Integer(load_default=PAGE, validate=validate.Range(1, 200))


class LanguageQuery(Schema):
    """The language of a PDF."""

    lang = fields.String(load_default="vi", validate=validate.OneOf(list(LANGUAGES)))


class ReceiptDistrictSchema(Schema):
    """A district by its code."""

    code = fields.String(required=True)
    name = fields.String(required=True)


class ReceiptZoneSchema(Schema):
    """A zone as it was called when the session began."""

    code = zone_code(required=True)
    name = fields.String(required=True)
    street = fields.String(required=True)


class ReceiptTaxSchema(Schema):
    """VAT at one rate: `net` and `amount` add up to what was paid."""

    rate = fields.String(required=True, metadata={"example": "8%"})
    net = fields.Nested(MoneySchema, required=True)
    amount = fields.Nested(MoneySchema, required=True)


class ReceiptSellerSchema(Schema):
    """Who sold it."""

    name = fields.String(required=True)
    tax_code = fields.String(required=True)
    address = fields.String(required=True)


class ReceiptInvoiceSchema(Schema):
    """What its e-invoice is called."""

    sign = fields.String(required=True, metadata={"example": "1C26MAC"})
    number = fields.Integer(required=True)


class ReceiptSchema(Schema):
    """What was charged for a session, or (`credit_note`) given back: then amounts are below 0, `corrects` is the number
    of the receipt, and there are no lines. Of the plate the last three characters are hidden."""

    id = fields.UUID(required=True)
    kind = fields.String(required=True, validate=validate.OneOf(KINDS))
    number = fields.String(required=True, metadata={"example": "2026-002-0000123"})
    corrects = fields.String(required=True, allow_none=True)
    issued_at = Instant(required=True)
    einvoice = fields.Nested(ReceiptInvoiceSchema, required=True)
    session = fields.UUID(required=True)
    zone = fields.Nested(ReceiptZoneSchema, required=True)
    district = fields.Nested(ReceiptDistrictSchema, required=True)
    plate = fields.String(required=True, metadata={"example": "30A-12•••"})
    vehicle_class = vehicle_class(required=True)
    from_ = Instant(required=True, data_key="from")
    to = Instant(required=True)
    payment_method = fields.String(required=True)
    rate_version = fields.String(required=True)
    lines = fields.List(fields.Nested(LineSchema), required=True)
    net = fields.Nested(MoneySchema, required=True)
    vat = fields.List(fields.Nested(ReceiptTaxSchema), required=True)
    total = fields.Nested(MoneySchema, required=True)
    seller = fields.Nested(ReceiptSellerSchema, required=True, allow_none=True)


class ReceiptPageSchema(Schema):
    """The newest charge first; a `Link` header leads to the next page."""

    receipts = fields.List(fields.Nested(ReceiptSchema), required=True)


def receipt_json(receipt: Receipt) -> dict[str, Any]:
    """A receipt as ReceiptSchema documents it."""
    return {
        "id": str(receipt.id),
        "kind": receipt.kind,
        "number": receipt.number_text,
        "corrects": receipt.corrects_text,
        "issued_at": local(receipt.issued_at),
        "einvoice": {"sign": receipt.sign, "number": receipt.number},
        **receipt.content,
    }


def pdf_answer(receipt: Receipt, language: str) -> Response:
    """The receipt on paper; 304 for who has it."""
    drawn = pdf.draw(receipt, language, resources().settings.font_folder)
    name = f'inline; filename="{receipt.number_text}-{language}.pdf"'
    response = Response(drawn, mimetype=PDF, headers={"Content-Disposition": name, "Vary": "Accept"})
    response.add_etag()
    response.make_conditional(request)
    return response


def receipt_answer(receipt: Receipt, language: str) -> Response:
    """The receipt as the request prefers it: JSON where it does not say."""
    if request.accept_mimetypes.best_match([JSON, PDF]) == PDF:
        return pdf_answer(receipt, language)
    return answer(receipt_json(receipt), headers={"Vary": "Accept"})


def find_own(receipt_id: str) -> Receipt:
    """One of the receipts of who asks. Raises BadParameter, UnknownReceipt."""
    try:
        wanted = UUID(receipt_id)
    except ValueError:
        raise BadParameter([{"field": "receipt_id", "rule": "must be a UUID"}]) from None
    return store.find(resources().connections.get(), wanted, g.identity.subject)


@receipts.route("/receipts", methods=["GET"])
@receipts.allow("driver")
@receipts.arguments(PageQuery, location="query", error_status_code=400)
@receipts.response(200, ReceiptPageSchema)
@receipts.refusals(BadParameter)
def history(wanted: dict[str, Any]) -> Response:
    """The driver's receipts and credit notes, the newest charge first."""
    cursor, limit = wanted.get("cursor"), wanted["limit"]
    found = store.of_client(resources().connections.get(), g.identity.subject, cursor, limit + 1)
    page = {"receipts": [receipt_json(receipt) for receipt in found[:limit]]}
    return answer(page, headers=next_link(str(found[limit - 1].id)) if len(found) > limit else None)


@receipts.route("/receipts/<receipt_id>.pdf", methods=["GET"], parameters=[RECEIPT_ID])
@receipts.allow("driver")
@receipts.arguments(LanguageQuery, location="query", error_status_code=400)
@receipts.doc(responses={"200": {"description": "The PDF"} | PDF_CONTENT, "304": NOT_CHANGED})
@receipts.refusals(BadParameter, UnknownReceipt, FontMissing)
def paper(wanted: dict[str, Any], receipt_id: str) -> Response:
    """One receipt as a PDF; the same bytes each time."""
    return pdf_answer(find_own(receipt_id), wanted["lang"])


@receipts.route("/receipts/<receipt_id>", methods=["GET"], parameters=[RECEIPT_ID])
@receipts.allow("driver")
@receipts.arguments(LanguageQuery, location="query", error_status_code=400)
@receipts.doc(responses={"200": PDF_CONTENT, "304": NOT_CHANGED})
@receipts.response(200, ReceiptSchema)
@receipts.refusals(BadParameter, UnknownReceipt, FontMissing)
def find(wanted: dict[str, Any], receipt_id: str) -> Response:
    """One receipt; with `Accept: application/pdf` as a PDF in the language `lang`."""
    return receipt_answer(find_own(receipt_id), wanted["lang"])


@receipts.route("/sessions/<session_id>/receipt", methods=["GET"], parameters=[ID_PARAMETER])
@receipts.allow("driver")
@receipts.arguments(LanguageQuery, location="query", error_status_code=400)
@receipts.doc(responses={"200": PDF_CONTENT, "304": NOT_CHANGED})
@receipts.response(200, ReceiptSchema)
@receipts.refusals(BadParameter, errors.UnknownSession, UnknownReceipt, FontMissing)
def of_session(wanted: dict[str, Any], session_id: str) -> Response:
    """The receipt of a session, from the instant it is charged; 404 before, and where it was free. Otherwise as
    /v1/receipts/{id}."""
    receipt = issuing.of_session(resources(), read_id(session_id), g.identity.subject)
    return receipt_answer(receipt, wanted["lang"])
