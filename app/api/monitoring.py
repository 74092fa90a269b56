"""What operators' machines read: health, readiness, metrics."""

import time
from functools import cache

import psycopg
from flask import Flask, Response, g, request
from marshmallow import Schema, fields
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from app.api.blueprint import Blueprint, answer
from app.api.fields import Instant, local
from app.errors import RETRY_AFTER_SECONDS, Unavailable
from app.resources import resources
from zones.occupancy import CopiesAway

monitoring = Blueprint("monitoring", __name__, description="Health, readiness and metrics of this process")

# A wall clock that differs by less from the time that this process keeps was slewed, or set by a leap second.
CLOCK_OFF_SECONDS = 2.0
# What is counted by its name: a client may make up any other method, and each name is kept for as long as this process
# lives.
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
REGISTRY = CollectorRegistry()
SECONDS = Histogram(
    "iparking_request_seconds", "Time to answer a request", ["method", "route", "status"], registry=REGISTRY,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)  # fmt: skip


class ClockSchema(Schema):
    """How fast business time runs; 1 outside simulations."""

    speed = fields.Float(required=True)


class HealthSchema(Schema):
    """This process answers, and what it takes for the time."""

    status = fields.String(required=True)
    now = Instant(required=True)
    clock = fields.Nested(ClockSchema, required=True)


class ReadySchema(Schema):
    """Each dependency: ok, or why not."""

    status = fields.String(required=True)
    checks = fields.Dict(keys=fields.String(), values=fields.String(), required=True)


@monitoring.route("/healthz")
@monitoring.response(200, HealthSchema)
def health() -> Response:
    """This process answers."""
    clock = resources().clock
    return answer({"status": "ok", "now": local(clock.now()), "clock": {"speed": clock.speed}})


@monitoring.route("/readyz")
@monitoring.response(200, ReadySchema)
@monitoring.alt_response(503, schema=ReadySchema, description="A dependency without which nothing is decided is away")
def ready() -> Response:
    """Each dependency. Redis and a replica may be away: PostgreSQL decides. A wall clock that was set is ignored, but
    not hidden."""
    checks = {"postgresql": _check_postgresql(), "redis": _check_redis(), "catalogue": _check_catalogue()}
    checks["clock"] = _check_clock()
    replica = resources().replica
    if replica is not None:
        checks["replica"] = replica.state()
    fit = checks["postgresql"] == checks["catalogue"] == "ok"
    if fit:
        return answer({"status": "ready", "checks": checks})
    return answer({"status": "unready", "checks": checks}, 503, {"Retry-After": str(RETRY_AFTER_SECONDS)})


def _check_postgresql() -> str:
    try:
        resources().connections.get().execute("SELECT 1")
    except psycopg.OperationalError:
        return "down"
    return "ok"


def _check_redis() -> str:
    try:
        resources().copies.ping()
    except (CopiesAway, Unavailable):
        return "down"
    return "ok"


def _check_clock() -> str:
    off = resources().clock.off()
    return "ok" if abs(off) < CLOCK_OFF_SECONDS else f"set by {off:+.1f} s since the service began: restart it"


def _check_catalogue() -> str:
    try:
        return "ok" if resources().catalogue.places.all and resources().catalogue.rates else "empty"
    except Unavailable:
        return "unread"


@monitoring.route("/metrics")
@monitoring.response(200, {"type": "string"}, content_type="text/plain")
def metrics() -> Response:
    """Prometheus figures of this process."""
    return Response(generate_latest(REGISTRY), content_type=CONTENT_TYPE_LATEST)


def measure(app: Flask) -> None:
    """Count and time every answer by its route, never by its path (which holds ids)."""

    def begin() -> None:
        g.began = time.perf_counter()

    def finish(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else "(none)"
        method = request.method if request.method in METHODS else "(other)"
        seconds_of(method, route, response.status_code).observe(time.perf_counter() - g.began)
        return response

    app.before_request(begin)
    app.after_request(finish)


@cache
def seconds_of(method: str, route: str, status: int) -> Histogram:
    """The figures of one kind of answer; looking them up by label costs more than counting."""
    return SECONDS.labels(method, route, status)
