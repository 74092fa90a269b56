"""A table's rows as a Parquet file, and back: every value as it was. pyarrow is loaded when it is needed."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    import pyarrow

BATCH = 20_000


class UnknownColumns(Exception):
    """A column's type has no form in the file, or a file has columns that the table lacks."""


def write(connection: psycopg.Connection, table: str, file: Path) -> list[str]:
    """Write all rows, as the caller's transaction sees them, and have the disk keep them; the columns' names.

    Raises OSError (a full disk), UnknownColumns.
    """
    from pyarrow import parquet

    schema = _schema(connection, table)
    with file.open("wb") as out:
        with parquet.ParquetWriter(out, schema, compression="zstd") as writer:
            for batch in _batches(connection, table, schema):
                writer.write_batch(batch)
        out.flush()
        os.fsync(out.fileno())
    return list(schema.names)


def columns(file: Path) -> list[str]:
    """The names of the columns that a file has."""
    from pyarrow import parquet

    return list(parquet.read_schema(file).names)


def load(connection: psycopg.Connection, file: Path, table: str) -> None:
    """Copy a file's rows into a table; columns that are newer than the file have their default.

    Raises UnknownColumns, psycopg.Error where a row is refused.
    """
    from pyarrow import parquet

    names = columns(file)
    gone = set(names) - set(_types(connection, table))
    if gone:
        raise UnknownColumns(f"{file.name} has columns that {table} lacks: {', '.join(sorted(gone))}")
    with (
        parquet.ParquetFile(file) as source,
        connection.cursor() as cursor,
        cursor.copy(f"COPY {table} ({', '.join(names)}) FROM STDIN") as copy,
    ):
        for batch in source.iter_batches(BATCH):
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                copy.write_row(row)


def _types(connection: psycopg.Connection, table: str) -> dict[str, str]:
    """The columns of a table in their order, and PostgreSQL's short names of their types."""
    query = """SELECT a.attname, t.typname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"""
    return dict(connection.execute(query, (table,)).fetchall())


def _schema(connection: psycopg.Connection, table: str) -> "pyarrow.Schema":
    import pyarrow

    known = {
        "uuid": pyarrow.string(), "text": pyarrow.string(), "bool": pyarrow.bool_(), "int4": pyarrow.int32(),
        "int8": pyarrow.int64(), "timestamptz": pyarrow.timestamp("us", tz="UTC"),
    }  # fmt: skip
    types = _types(connection, table)
    unknown = [f"{name} {kind}" for name, kind in types.items() if kind not in known]
    if unknown:
        raise UnknownColumns(f"{table} has columns of types that have no form in the archive: {', '.join(unknown)}")
    return pyarrow.schema([(name, known[kind]) for name, kind in types.items()])


def _batches(connection: psycopg.Connection, table: str, schema: "pyarrow.Schema") -> Iterator["pyarrow.RecordBatch"]:
    import pyarrow

    # An id as text: Parquet's own form of a UUID is read back by few.
    names = [f"{name}::text" if kind == "uuid" else name for name, kind in _types(connection, table).items()]
    with connection.cursor(name="archive") as cursor:
        cursor.execute(f"SELECT {', '.join(names)} FROM {table} ORDER BY started_at, id")
        while rows := cursor.fetchmany(BATCH):
            yield pyarrow.RecordBatch.from_arrays(_arrays(rows, schema), schema=schema)


def _arrays(rows: Sequence[tuple[Any, ...]], schema: "pyarrow.Schema") -> list["pyarrow.Array"]:
    import pyarrow

    return [pyarrow.array(values, kind) for values, kind in zip(zip(*rows, strict=True), schema.types, strict=True)]
