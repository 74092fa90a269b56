"""A blueprint whose decorators check, document and nothing else: views read top to bottom and return `answer(...)`."""

import re
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import flask_smorest
import orjson
import psycopg
from flask import Response, g, request
from marshmallow import Schema, ValidationError

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
    return answer(once(body, do), status)


def once(body: Any, do: Callable[[psycopg.Connection], Any]) -> bytes:
    """What a POST does, done once for one key in one transaction: its outcome as JSON, the first one's if repeated."""
    held = resources()
    connection = held.connections.get()
    call = idempotency.Request(g.identity.subject, request.path, idempotency_key(), body)
    return idempotency.once(connection, call, held.clock.now(), lambda: do(connection))


def answer_together(body: Any, do: Callable[[psycopg.Connection], Any], status: int = 200) -> Response:
    """As answer_once, for what takes several statements: they are one transaction also where there is no key."""

    return answer_once(body, together(do), status)


def together(do: Callable[[psycopg.Connection], Any]) -> Callable[[psycopg.Connection], Any]:
    """Several statements as one transaction, also where no key makes one."""

    def done(connection: psycopg.Connection) -> Any:
        with connection.transaction():
            return do(connection)

    return done


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


def read_body(schema: Schema) -> Any:
    """The request's JSON object as the schema loads it; no body stands for {}.

    Raises UnsupportedMedia, MalformedBody, BadBody.
    """
    raw = request.get_data()
    if raw and not request.is_json:
        raise errors.UnsupportedMedia("send Content-Type: application/json")
    try:
        body = orjson.loads(raw) if raw.strip() else {}
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"the body is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadBody([{"field": "(body)", "rule": "must be a JSON object"}])
    try:
        return schema.load(body)
    except ValidationError as error:
        raise BadBody(list(flatten(error.messages))) from None


def read_query(schema: Schema) -> Any:
    """The parameters of the request's address as the schema loads them. Raises BadParameter."""
    try:
        return schema.load(request.args.to_dict())
    except ValidationError as error:
        raise BadParameter(list(flatten(error.messages))) from None


def read_uuid(text: str, name: str) -> UUID:
    """An id from the path, where it is called `name`. Raises BadParameter."""
    try:
        return UUID(text)
    except ValueError:
        raise BadParameter([{"field": name, "rule": "must be a UUID"}]) from None


def uuid_parameter(name: str) -> dict[str, Any]:
    """An id in the path, as the document has it."""
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}


READERS = {"json": read_body, "query": read_query}


def _documented(view: View, document: Callable[[View], View]) -> View:
    """The view itself with what a decorator of flask-smorest says of it: its wrappers cost 10 µs a request each."""
    view._apidoc = document(view)._apidoc  # type: ignore[attr-defined]
    return view


class Blueprint(flask_smorest.Blueprint):
    """flask-smorest's blueprint, for its document; what a request needs is checked by our own decorators."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prepare_doc_cbks.append(_document_refusals)

    def arguments(self, schema: type[Schema], *, location: str = "json", **kwargs: Any) -> Callable[[View], View]:
        """Hand the view its body or query, checked. One schema object serves all requests."""
        held, read = schema(), READERS[location]
        document = super().arguments(held, location=location, **kwargs)

        def decorate(view: View) -> View:
            @wraps(view)
            def checked(*args: Any, **kwargs: Any) -> Any:
                return view(read(held), *args, **kwargs)

            return _documented(checked, document)

        return decorate

    def response(self, *args: Any, **kwargs: Any) -> Callable[[View], View]:
        """Document the answer of a view, which makes it itself."""
        document = super().response(*args, **kwargs)
        return lambda view: _documented(view, document)

    def alt_response(self, *args: Any, **kwargs: Any) -> Callable[[View], View]:
        """Document another answer of a view."""
        document = super().alt_response(*args, **kwargs)
        return lambda view: _documented(view, document)

    def doc(self, **kwargs: Any) -> Callable[[View], View]:
        """Document anything else."""
        document = flask_smorest.Blueprint.doc(**kwargs)
        return lambda view: _documented(view, document)

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
