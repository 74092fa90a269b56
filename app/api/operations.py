"""What operators ask of the service itself."""

from flask import Response
from marshmallow import Schema, fields

from app.api.blueprint import Blueprint, answer
from app.api.fields import Instant, local
from app.resources import resources
from zones import consistency

operations = Blueprint("operations", __name__, url_prefix="/v1/admin", description="For operators")


class CheckSchema(Schema):
    """One check; `details` holds the first divergences in words."""

    name = fields.String(required=True)
    divergences = fields.Integer(required=True)
    details = fields.List(fields.String(), required=True)


class ConsistencySchema(Schema):
    """All checks, and the sum of their divergences."""

    divergences = fields.Integer(required=True)
    as_of = Instant(required=True)
    checks = fields.List(fields.Nested(CheckSchema), required=True)


@operations.route("/consistency")
@operations.allow("operator")
@operations.response(200, ConsistencySchema)
def check_consistency() -> Response:
    """Do sessions, counts and copies agree?"""
    now = resources().clock.now()
    checks = consistency.check(resources().connections.get(), resources().copies, now)
    found = [{"name": check.name, "divergences": check.divergences, "details": check.details} for check in checks]
    total = sum(check.divergences for check in checks)
    return answer({"divergences": total, "as_of": local(now), "checks": found})
