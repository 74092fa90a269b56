"""One table: each business refusal, its HTTP status, its code and its title (RFC 9457)."""

import logging
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson
import psycopg
import sqlalchemy.exc
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from billing import errors as billing_errors
from zones import errors as zone_errors

log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "/docs#problem-"
RETRY_AFTER_SECONDS = 1


class Refusal(Exception):
    """A refusal that only the web layer knows: who asks, and how."""


class Unauthorized(Refusal):
    """No bearer key, or one that nobody holds."""


class Forbidden(Refusal):
    """The role may not do this."""


class BadParameter(Refusal):
    """A query parameter, path parameter or header breaks its rule."""

    def __init__(self, errors: list[dict[str, str]]) -> None:
        super().__init__("; ".join(f"{error['field']}: {error['rule']}" for error in errors))
        self.errors = errors


class BadBody(Refusal):
    """The body parses but does not validate."""

    def __init__(self, errors: list[dict[str, str]]) -> None:
        super().__init__("; ".join(f"{error['field']}: {error['rule']}" for error in errors))
        self.errors = errors


class MalformedBody(Refusal):
    """The body is no JSON object."""


class UnknownResource(Refusal):
    """Nothing has this id or code."""


class RequestInProgress(Refusal):
    """A request with the same idempotency key, or on the same rows, has not finished."""


class UnsupportedMedia(Refusal):
    """A body that does not say it is JSON."""


class Unavailable(Refusal):
    """PostgreSQL does not answer."""


PROBLEMS: dict[type[Exception], tuple[int, str, str]] = {
    MalformedBody: (400, "malformed_body", "The body cannot be read"),
    BadParameter: (400, "invalid_parameter", "A parameter breaks its rule"),
    billing_errors.BadSignature: (400, "bad_signature", "Not signed by who should have sent it"),
    billing_errors.UnreadableEvent: (400, "malformed_body", "The body cannot be read"),
    Unauthorized: (401, "unauthorized", "A valid bearer key is needed"),
    billing_errors.PaymentDeclined: (402, "payment_declined", "The card was declined"),
    Forbidden: (403, "forbidden", "Your role may not do this"),
    UnknownResource: (404, "not_found", "Nothing is there"),
    zone_errors.UnknownSession: (404, "not_found", "No such session"),
    billing_errors.UnknownPayment: (404, "not_found", "No such payment"),
    billing_errors.UnknownWithdrawal: (404, "not_found", "No such withdrawal"),
    billing_errors.UnknownRefund: (404, "not_found", "No such refund"),
    billing_errors.UnknownShift: (404, "not_found", "No such shift"),
    billing_errors.UnknownAttendant: (404, "not_found", "No such attendant"),
    zone_errors.UnknownZone: (404, "unknown_zone", "No such zone"),
    zone_errors.UnknownDistrict: (404, "not_found", "No such district"),
    zone_errors.AlreadyParked: (409, "already_parked", "The vehicle is already parked"),
    zone_errors.ZoneFull: (409, "zone_full", "The zone is full"),
    zone_errors.SessionEnded: (409, "session_ended", "The session has ended"),
    zone_errors.SessionExpired: (409, "session_expired", "The session's time is over"),
    zone_errors.NotPrepaid: (409, "not_prepaid", "The session has no prepaid time"),
    zone_errors.MaxStayExceeded: (409, "max_stay_exceeded", "Longer than the maximum stay"),
    zone_errors.StoppedInFuture: (409, "stopped_at_in_future", "The stop lies in the future"),
    zone_errors.StoppedBeforeStart: (409, "stopped_at_before_start", "The stop lies before the start"),
    zone_errors.StoppedTooLate: (409, "stopped_at_too_late", "The stop comes too late"),
    zone_errors.CapturedInFuture: (409, "captured_at_in_future", "The check lies in the future"),
    zone_errors.CapturedTooLate: (409, "captured_at_too_late", "The check comes too late"),
    billing_errors.InsufficientFunds: (409, "insufficient_funds", "The wallet does not cover it"),
    billing_errors.OwesTooMuch: (409, "owes_too_much", "Too much is owed from earlier sessions"),
    billing_errors.NotFree: (409, "not_free", "The stay is not free of charge"),
    billing_errors.NoCard: (409, "no_card", "No card is kept"),
    billing_errors.PaymentRefused: (409, "payment_refused", "The payment service does not do that"),
    billing_errors.NothingOwed: (409, "nothing_owed", "There is nothing to pay"),
    billing_errors.PaymentUnderWay: (409, "payment_under_way", "A payment by card has no outcome yet"),
    billing_errors.AmountTooSmall: (409, "amount_too_small", "Less than a card can be charged"),
    billing_errors.AmountTooLarge: (409, "amount_too_large", "More than a card can be charged"),
    billing_errors.PaymentOver: (409, "payment_over", "Nobody is to pay it any more"),
    billing_errors.MethodUnavailable: (409, "method_unavailable", "The payment method is not set up"),
    billing_errors.UnknownReceipt: (404, "not_found", "No such receipt"),
    billing_errors.AlreadyDecided: (409, "already_decided", "It was decided otherwise before"),
    billing_errors.AlreadyRequested: (409, "already_requested", "A refund is waiting for a decision"),
    billing_errors.NothingCharged: (409, "nothing_charged", "Nothing was charged"),
    billing_errors.RefundExceedsCharge: (409, "refund_exceeds_charge", "More than was charged"),
    billing_errors.InsufficientFloat: (409, "insufficient_float", "The float does not cover it"),
    billing_errors.NoOpenShift: (409, "no_open_shift", "No shift is open"),
    billing_errors.ShiftOpen: (409, "shift_open", "A shift is open already"),
    billing_errors.ShiftClosed: (409, "shift_closed", "The shift is closed"),
    billing_errors.NoRate: (409, "no_rate", "No rate is in force"),
    zone_errors.Overtaken: (409, "request_in_progress", "The same request is still running"),
    RequestInProgress: (409, "request_in_progress", "The same request is still running"),
    UnsupportedMedia: (415, "unsupported_media_type", "The body must be application/json"),
    BadBody: (422, "invalid_body", "The body does not validate"),
    zone_errors.InvalidPlate: (422, "invalid_plate", "Not a plate in use"),
    zone_errors.ClassNotServed: (422, "class_not_served", "The vehicle class is not served (there)"),
    zone_errors.KeyConflict: (422, "idempotency_conflict", "The idempotency key was used with another request"),
    billing_errors.GatewayUnavailable: (503, "gateway_unavailable", "The payment service gives no answer"),
    billing_errors.FontMissing: (503, "pdf_unavailable", "Receipts cannot be drawn here; JSON is served"),
    Unavailable: (503, "unavailable", "Try again in a moment"),
}

# What werkzeug raises by itself, by status.
HTTP_CODES = {400: "malformed_body", 404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
LOCK_TIMEOUTS = (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled, psycopg.errors.DeadlockDetected)
# PostgreSQL cannot now, and may again in a moment. Most of it is an OperationalError (a lost connection, 53 a full disk
# or too many connections, 57 a server that stops or starts, 58 a failing disk). Two that psycopg takes for our own
# mistakes are not: a transaction that a stopped process left open, a server that has become a standby.
AWAY = (
    psycopg.OperationalError,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.ReadOnlySqlTransaction,
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.TimeoutError,
)


@dataclass(frozen=True, slots=True)
class Problem:
    """An RFC 9457 problem object, with our own `code` and, for bad fields, `errors`."""

    status: int
    code: str
    title: str
    detail: str | None = None
    errors: list[dict[str, str]] = field(default_factory=list)

    def response(self) -> Response:
        """The HTTP answer, with Retry-After and WWW-Authenticate where they belong."""
        body: dict[str, Any] = {"type": f"{TYPE_PREFIX}{self.code}", "title": self.title, "status": self.status}
        body |= {"detail": self.detail} if self.detail else {}
        body |= {"code": self.code} | ({"errors": self.errors} if self.errors else {})
        answer = Response(orjson.dumps(body), self.status, mimetype=MEDIA_TYPE)
        if self.status == HTTPStatus.SERVICE_UNAVAILABLE:
            answer.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        if self.status == HTTPStatus.UNAUTHORIZED:
            answer.headers["WWW-Authenticate"] = 'Bearer realm="iparking"'
        return answer


def problem_of(error: Exception) -> Problem:
    """The problem that one of our own errors stands for."""
    status, code, title = next(PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS)
    return Problem(status, code, title, str(error) or None, getattr(error, "errors", []))


def _database_problem(error: Exception) -> Problem:
    """A lost database is 503; a wait for another request's locks that took too long is 409. What is neither is a bug of
    ours, and raised again."""
    original = getattr(error, "orig", None) or error
    if isinstance(original, LOCK_TIMEOUTS):
        return problem_of(RequestInProgress("another request holds what this one needs; try again"))
    if isinstance(original, AWAY):
        log.warning("answered 503: %s", str(original).strip().partition("\n")[0])
        return problem_of(Unavailable("the database does not answer"))
    raise error


def _http_problem(error: HTTPException) -> Response:
    """What werkzeug refuses by itself: unknown path, wrong method, too large; and our own bugs (500)."""
    if error.response is not None or error.code is None or error.code < HTTPStatus.BAD_REQUEST:
        return error.get_response()  # type: ignore[return-value]
    status = HTTPStatus(error.code)
    code = HTTP_CODES.get(status, status.phrase.lower().replace(" ", "_"))
    detail = None if status == HTTPStatus.INTERNAL_SERVER_ERROR else error.description
    answer = Problem(status, code, status.phrase, detail).response()
    for name, value in error.get_headers(request.environ):
        if name == "Allow":
            answer.headers[name] = value
    return answer


def register(app: Flask) -> None:
    """Answer every error of the application as a problem."""
    for kind in PROBLEMS:
        app.register_error_handler(kind, lambda error: problem_of(error).response())
    for kind in (psycopg.Error, sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError):
        app.register_error_handler(kind, lambda error: _database_problem(error).response())
    app.register_error_handler(HTTPException, _http_problem)
