"""Rows of a JSON answer as CSV (RFC 4180), with the columns that their schema names."""

import csv
import io
from collections.abc import Iterable, Iterator
from functools import reduce
from operator import getitem
from typing import Any

from flask import Response, request
from marshmallow import Schema, fields

JSON, CSV = "application/json", "text/csv"
# What a spreadsheet would take for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")
Path = tuple[str, ...]


def is_csv_wanted() -> bool:
    """Whether the request prefers CSV to JSON, which is what it gets where it does not say."""
    return request.accept_mimetypes.best_match([JSON, CSV]) == CSV


def csv_answer(schema: type[Schema], rows: Iterable[dict[str, Any]], headers: dict[str, str] | None = None) -> Response:
    """The rows as a CSV response with a header line."""
    return Response(as_csv(list(paths_of(schema())), rows), 200, headers, content_type=f"{CSV}; charset=utf-8")


def paths_of(schema: Schema, before: Path = ()) -> Iterator[Path]:
    """Where the values of a row stand; those of an object inside it each get a column."""
    for name, field in schema.fields.items():
        path = (*before, field.data_key or name)
        if isinstance(field, fields.Nested):
            yield from paths_of(field.schema, path)
        else:
            yield path


def as_csv(paths: list[Path], rows: Iterable[dict[str, Any]]) -> str:
    """A header line, then a line a row. An unknown value is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow("_".join(path) for path in paths)
    writer.writerows([_cell(reduce(getitem, path, row)) for path in paths] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """A truth value as in JSON; a text that a spreadsheet would run is marked as a text."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
