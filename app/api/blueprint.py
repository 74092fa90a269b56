"""A blueprint whose decorators check, document and nothing else: views read top to bottom and return `answer(...)`."""

import re
from collections.abc import Callable, Iterable
from typing import Any, ClassVar
from urllib.parse import urlencode

import flask_smorest
import orjson
import psycopg
from flask import Response, g, request
from marshmallow import Schema, ValidationError
from webargs.flaskparser import FlaskParser

from app import errors, idempotency
from app.errors import PROBLEMS, BadBody, BadParameter, MalformedBody
from app.identity import roles
from app.resources import resources
from zones import errors as zone_errors

View = Callable[..., Any]
KEY_GRAMMAR = re.compile(r"[\x21-\x7e]{1,255}")
KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Opaque. The same key and body within 24 h get the first answer again; another body is a conflict.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}


def answer(payload: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response. Bytes are taken as JSON already."""
    body = payload if isinstance(payload, bytes) else orjson.dumps(payload)
    return Response(body, status, headers, mimetype="application/json")


def idempotency_key() -> str | None:
    """The request's key as it came. Raises BadParameter."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not KEY_GRAMMAR.fullmatch(key):
        raise BadParameter([{"field": "Idempotency-Key", "rule": "1 to 255 visible ASCII characters"}])
    return key


def answer_once(body: Any, do: Callable[[psycopg.Connection], Any], status: int = 200) -> Response:
    """The answer to a POST that no row of its own protects: done once for one key, in one transaction."""
    held = resources()
    connection = held.connections.get()
    call = idempotency.Request(g.identity.subject, request.path, idempotency_key(), body)
    return answer(idempotency.once(connection, call, held.clock.now(), lambda: do(connection)), status)


def next_link(cursor: str) -> dict[str, str]:
    """The header that leads to the page after `cursor`, with the other parameters of this request."""
    arguments = request.args.to_dict() | {"cursor": cursor}
    return {"Link": f'<{request.path}?{urlencode(arguments)}>; rel="next"'}


def flatten(messages: Any, path: str = "") -> Iterable[dict[str, str]]:
    """marshmallow's nested messages as a flat list of field and rule."""
    if isinstance(messages, dict):
        for name, inner in messages.items():
            yield from flatten(inner, path if name == "_schema" else f"{path}.{name}" if path else str(name))
    elif isinstance(messages, list):
        for message in messages:
            yield from flatten(message, path)
    else:
        yield {"field": path or "(body)", "rule": str(messages)}


class Parser(FlaskParser):
    """webargs with our own errors: a bad parameter is 400, a bad body 422, an unreadable one 400."""

    DEFAULT_UNKNOWN_BY_LOCATION: ClassVar = {"json": "raise", "query": "raise", "headers": "exclude", "path": "raise"}

    def handle_error(self, error: ValidationError, req: Any, schema: Schema, **kwargs: Any) -> Any:  # type: ignore[override]
        for location, messages in error.messages.items() if isinstance(error.messages, dict) else ():
            kind = BadBody if location == "json" else BadParameter
            raise kind(list(flatten(messages))) from None
        raise error

    def load_json(self, req: Any, schema: Schema) -> Any:
        """The body as a JSON object; an empty one stands for {}."""
        raw = req.get_data(cache=True)
        try:
            body = orjson.loads(raw) if raw.strip() else {}
        except orjson.JSONDecodeError as error:
            raise MalformedBody(f"the body is no JSON: {error}") from None
        if not isinstance(body, dict):
            raise BadBody([{"field": "(body)", "rule": "must be a JSON object"}])
        return body


class Blueprint(flask_smorest.Blueprint):
    """flask-smorest's blueprint with our parser, and with roles, keys and refusals in the document."""

    ARGUMENTS_PARSER = Parser()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prepare_doc_cbks.append(_document_refusals)

    def arguments(self, schema: type[Schema], **kwargs: Any) -> Callable[[View], View]:
        """Check what was sent. One schema object serves all requests: making one costs as much as using it."""
        return super().arguments(schema(), **kwargs)

    def allow(self, *allowed: str) -> Callable[[View], View]:
        """Let only these roles in, and say so in the document."""

        def decorate(view: View) -> View:
            described = f"{(view.__doc__ or '').strip()}\n\nRole: {' or '.join(allowed)}."
            checked = self.refusals(errors.Unauthorized, errors.Forbidden)(roles.require(*allowed)(view))
            return self.doc(security=[{"bearer": []}], description=described)(checked)

        return decorate

    def refusals(self, *kinds: type[Exception]) -> Callable[[View], View]:
        """Document what a view may refuse; the errors themselves are raised far below."""

        def decorate(view: View) -> View:
            view._apidoc = {**getattr(view, "_apidoc", {})}  # type: ignore[attr-defined]
            view._apidoc["refusals"] = [*view._apidoc.get("refusals", []), *kinds]  # type: ignore[attr-defined]
            return view

        return decorate

    def repeatable(self, view: View) -> View:
        """Document the Idempotency-Key header of a POST and what it may refuse."""
        refused = self.refusals(BadParameter, errors.RequestInProgress, zone_errors.KeyConflict)(view)
        return self.doc(parameters=[KEY_PARAMETER])(refused)


def _document_refusals(doc: dict[str, Any], doc_info: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Add a problem answer for each status a view may refuse with, and a default for what any request may meet."""
    by_status: dict[str, list[str]] = {}
    for kind in dict.fromkeys([*doc_info.get("refusals", []), errors.Unavailable]):
        status, code, title = PROBLEMS[kind]
        by_status.setdefault(str(status), []).append(f"`{code}`: {title}")
    answers = {status: _problem_answer("; ".join(facts)) for status, facts in by_status.items()}
    answers["default"] = _problem_answer("Any other refusal: 405, 413, 415, 500")
    kept = {str(status): held for status, held in doc.get("responses", {}).items()}
    # Keys are texts: a view may document more of one status (flask-smorest merges what `doc` says after this).
    return doc | {"responses": kept | answers}


def _problem_answer(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {errors.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
