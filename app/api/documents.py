"""The OpenAPI document at /openapi.json and a page that reads it, at /docs."""

from typing import Any

import flask_smorest
from flask import Flask, render_template

from app.api.blueprint import answer
from app.api.fields import ProblemSchema
from app.errors import PROBLEMS

OPENAPI: dict[str, Any] = {
    "API_TITLE": "iParking",
    "API_VERSION": "v1",
    "OPENAPI_VERSION": "3.1.0",
    "API_SPEC_OPTIONS": {
        "info": {
            "description": "Smart parking in Hanoi's nine districts: find, park, pay; check plates; read occupancy.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "components": {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
    },
}


class Api(flask_smorest.Api):
    """flask-smorest's API whose errors are problems (app/errors.py answers them)."""

    ERROR_SCHEMA = ProblemSchema
    DEFAULT_ERROR_RESPONSE_NAME = None


def register(app: Flask, api: flask_smorest.Api) -> None:
    """Serve the document and its page. The document is complete once all blueprints are registered."""
    document = api.spec.to_dict()
    body = answer(document).get_data()
    app.add_url_rule("/openapi.json", "openapi", lambda: answer(body))
    app.add_url_rule("/docs", "docs", lambda: render_template("docs.html", document=document, problems=_problems()))


def _problems() -> list[tuple[int, str, str]]:
    return sorted(set(PROBLEMS.values()))
