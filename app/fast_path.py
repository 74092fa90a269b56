"""What a rush hour is made of (start, stop, check, the map of a box), answered before Flask is asked.

Flask, werkzeug and marshmallow cost such a request more than all that the service itself does for it. The application
called by one thread, in CPU microseconds a call, with the round trip to PostgreSQL (some 200): a start 1,019 through
Flask and 600 here, a stop 1,351 and 569, a check 913 and 569; a bare Flask view with one statement takes 413. The map
of 500 zones took 2,561, and 390 here.

So this WSGI layer stands before Flask. It takes a request only where everything about it is ordinary: the exact path, a
known key of the right role, a plain JSON body that strict types accept, or a box and nothing else. Whatever else comes
goes on to Flask untouched, which alone knows how bad input is refused; and what a use case refuses, Flask's own error
table answers. So each rule still stands in one place. This layer only must not accept more than the schemas do:
tests/app/test_fast_path.py sends the same requests both ways and compares all that comes back.
"""

import io
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import orjson
from flask import Flask, g

from app import parking
from app.api import enforcement, sessions, zones
from app.api.blueprint import KEY_GRAMMAR
from app.api.fields import EARLIEST, LATEST
from app.api.monitoring import seconds_of
from app.availability import Map
from app.identity.keys import Identity
from app.parking import StartRequest
from app.resources import Resources
from billing.gateways import METHODS
from zones.enforcement import Position, Sighting
from zones.sessions import StopCall
from zones.terms import KNOWN_CLASSES

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
# Of an ordinary request: the rule of its route, the status, the headers but for the length, and the body.
Answered = tuple[str, HTTPStatus, list[tuple[str, str]], bytes]
# Longer bodies than these requests ever have are left to Flask, which knows the limit.
LONGEST_BODY = 4096

_PLAIN = r"^[^\x00-\x1f]*\Z"
ZoneCode = Annotated[str, msgspec.Meta(min_length=1, max_length=40, pattern=_PLAIN)]
PlateText = Annotated[str, msgspec.Meta(max_length=64, pattern=_PLAIN)]
VehicleClass = Literal[KNOWN_CLASSES]  # type: ignore[valid-type]
# A part of what Instant takes: the rest of ISO 8601 is left to it.
InstantText = Annotated[
    str, msgspec.Meta(max_length=40, pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)\Z")
]


class StartBody(msgspec.Struct, forbid_unknown_fields=True):
    """What StartSchema takes."""

    zone: ZoneCode
    plate: PlateText
    vehicle_class: VehicleClass
    payment_method: Literal[METHODS]  # type: ignore[valid-type]
    minutes: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None


class StopBody(msgspec.Struct, forbid_unknown_fields=True):
    """What StopSchema takes."""

    stopped_at: InstantText | None = None


class PositionBody(msgspec.Struct, forbid_unknown_fields=True):
    """What PositionSchema takes."""

    lat: Annotated[float, msgspec.Meta(ge=-90, le=90)]
    lng: Annotated[float, msgspec.Meta(ge=-180, le=180)]
    accuracy: Annotated[float, msgspec.Meta(ge=0, le=enforcement.WORST_ACCURACY_METRES)]


class SightingBody(msgspec.Struct, forbid_unknown_fields=True):
    """What SightingSchema takes."""

    plate: PlateText
    captured_at: InstantText
    vehicle_class: VehicleClass | None = None
    zone: ZoneCode | None = None
    position: PositionBody | None = None


class NotOrdinary(Exception):
    """This request is Flask's."""


class Call:
    """One ordinary request: who sends it, its key, and the id in its path."""

    __slots__ = ("client", "key", "resources", "session_id")

    def __init__(self, resources: Resources, client: str, key: str | None, session_id: UUID | None) -> None:
        self.resources, self.client, self.key, self.session_id = resources, client, key, session_id


@dataclass(frozen=True, slots=True)
class Route:
    """One hot POST: who may send it, what it reads, what it does, and how its success is named."""

    rule: str
    role: str
    read: Callable[[bytes], Any]
    run: Callable[[Call, Any], dict[str, Any]]
    status: HTTPStatus


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:  # the 30th of February
        raise NotOrdinary from None
    if not EARLIEST <= instant < LATEST:
        raise NotOrdinary
    return instant.astimezone(UTC)


def _start(call: Call, body: StartBody) -> dict[str, Any]:
    wanted = StartRequest(body.zone, body.plate, body.vehicle_class, body.minutes, body.payment_method)
    return sessions.started_json(call.resources, parking.start(call.resources, call.client, call.key, wanted))


def _stop(call: Call, body: StopBody) -> dict[str, Any]:
    stopped_at = None if body.stopped_at is None else _instant(body.stopped_at)
    assert call.session_id is not None
    wanted = StopCall(call.session_id, call.client, stopped_at, call.resources.clock.now(), call.key)
    return sessions.session_json(parking.stop(call.resources, wanted))


def _check(call: Call, body: SightingBody) -> dict[str, Any]:
    if body.zone is None and body.position is None:
        raise NotOrdinary
    at = body.position
    where = None if at is None else Position(at.lat, at.lng, at.accuracy)
    sighting = Sighting(body.plate, body.vehicle_class, body.zone, where, _instant(body.captured_at))
    request_hash = enforcement.request_hash(call.key, sighting)
    return enforcement.check_json(parking.check(call.resources, call.client, call.key, request_hash, sighting))


def _reader(body: type[msgspec.Struct]) -> Callable[[bytes], Any]:
    return msgspec.json.Decoder(body).decode


START = Route("/v1/sessions", "driver", _reader(StartBody), _start, HTTPStatus.CREATED)
STOP = Route("/v1/sessions/<session_id>/stop", "driver", _reader(StopBody), _stop, HTTPStatus.OK)
CHECK = Route("/v1/enforcement/checks", "warden", _reader(SightingBody), _check, HTTPStatus.CREATED)
MAP = "/v1/zones"
_DEGREES = r"(-?\d{1,3}(?:\.\d{1,15})?)"
_MAP_QUERY = re.compile(f"bbox={_DEGREES},{_DEGREES},{_DEGREES},{_DEGREES}", re.ASCII)
_EXACT = {START.rule: START, CHECK.rule: CHECK}
_STOP_PATH = re.compile(r"/v1/sessions/([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})/stop", re.ASCII)


class FastPath:
    """WSGI: answers ordinary hot requests, hands all others to the Flask application it stands before."""

    def __init__(self, flask: Flask, resources: Resources) -> None:
        self._flask = flask
        self._next = flask.wsgi_app
        self._resources = resources
        self._map: Map = flask.extensions["iparking_map"]

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        began = time.perf_counter()
        method = environ["REQUEST_METHOD"]
        try:
            if method == "POST":
                rule, status, headers, body = self._post(environ)
            elif method == "GET" and environ["PATH_INFO"] == MAP:
                rule, status, headers, body = self._get_map(environ)
            else:
                raise NotOrdinary
        except NotOrdinary:
            return self._next(environ, start_response)
        except Exception as error:
            return self._refuse(error, began, environ, start_response)
        seconds_of(method, rule, status).observe(time.perf_counter() - began)
        start_response(_STATUS[status], [*headers, ("Content-Length", str(len(body)))])
        return [body]

    def _post(self, environ: Environ) -> Answered:
        route, session_id = _find(environ["PATH_INFO"])
        call = Call(self._resources, self._client(environ, route.role), _key(environ), session_id)
        raw = _raw(environ)
        environ["wsgi.input"] = io.BytesIO(raw)  # for Flask, should it be asked after all
        answered = route.run(call, _read(route, raw))
        return route.rule, route.status, _JSON, orjson.dumps(answered)

    def _get_map(self, environ: Environ) -> Answered:
        asked = _MAP_QUERY.fullmatch(environ.get("QUERY_STRING", ""))
        if asked is None or "HTTP_IF_NONE_MATCH" in environ:
            raise NotOrdinary
        west, south, east, north = map(float, asked.groups())
        if not (-180 <= west <= east <= 180 and -90 <= south <= north <= 90):
            raise NotOrdinary
        view = self._map.view()
        found = view.places.positions_in_box(west, south, east, north)
        if len(found) > zones.PAGE:
            raise NotOrdinary
        body, etag = view.at(found)
        headers = [("Content-Type", zones.GEOJSON), ("ETag", etag), ("Cache-Control", zones.CACHE_CONTROL)]
        return MAP, HTTPStatus.OK, headers, body

    def _client(self, environ: Environ, role: str) -> str:
        scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        identity: Identity | None = self._resources.keys.identify(token.strip()) if scheme == "Bearer" else None
        if identity is None or identity.role != role:
            raise NotOrdinary
        return identity.subject

    def _refuse(
        self, error: Exception, began: float, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        """What Flask answers where a view raises this: by its table of errors, or 500 with a line in the log."""
        with self._flask.request_context(environ):
            g.began = began
            try:
                response = self._flask.finalize_request(self._flask.handle_user_exception(error))
            except Exception as unexpected:
                response = self._flask.handle_exception(unexpected)
            return response(environ, start_response)


_JSON = [("Content-Type", "application/json")]
_STATUS = {status: f"{status.value} {status.phrase.upper()}" for status in (HTTPStatus.OK, HTTPStatus.CREATED)}


def _find(path: str) -> tuple[Route, UUID | None]:
    """The route of a path and the session's id in it. Raises NotOrdinary."""
    if path in _EXACT:
        return _EXACT[path], None
    match = _STOP_PATH.fullmatch(path)
    if match is None:
        raise NotOrdinary
    return STOP, UUID(match[1])


def _key(environ: Environ) -> str | None:
    key = environ.get("HTTP_IDEMPOTENCY_KEY")
    if key is not None and not KEY_GRAMMAR.fullmatch(key):
        raise NotOrdinary
    return key


def _raw(environ: Environ) -> bytes:
    """The body, whole. Raises NotOrdinary before it has read any of it."""
    length = environ.get("CONTENT_LENGTH") or ""
    if environ.get("CONTENT_TYPE") != "application/json" or not length.isdecimal() or int(length) > LONGEST_BODY:
        raise NotOrdinary
    return environ["wsgi.input"].read(int(length))


def _read(route: Route, raw: bytes) -> Any:
    try:
        return route.read(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise NotOrdinary from None
