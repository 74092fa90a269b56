"""What the service is measured against: the least that a Flask view can do, under the same server.

`application` has no flask-smorest, no roles, no rates, no idempotency. It serves the ceiling (one guarded UPDATE and
one INSERT), one indexed read, the bytes of a file, and /readyz; each thread has a connection of its own.
"""

import os
import threading
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import psycopg
from flask import Flask, Response, request

# Nothing but these columns and the primary keys.
TABLES = """
CREATE TABLE ref_zone (id integer PRIMARY KEY, occ integer, cap integer);
CREATE TABLE ref_session (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, zone integer, plate text);
CREATE TABLE ref_plate (id integer PRIMARY KEY, zone integer, plate text);
"""
# As many rows as a city has vehicles standing: the index is as deep, and no row is always the last one read.
PLATES = 100_000
# One row updated under its lock, one inserted, one commit: what no start can do without.
CEILING = (
    "WITH u AS (UPDATE ref_zone SET occ = occ + 1 WHERE id = %s AND occ < cap RETURNING id) "
    "INSERT INTO ref_session (zone, plate) SELECT id, %s FROM u RETURNING id"
)
READ = "SELECT zone, plate FROM ref_plate WHERE id = %s"
# The environment's name of the file that /bytes answers with.
BYTES_FILE = "IPARKING_BENCH_BYTES"
# The same statement in pgbench's own script. `zones` is set on its command line.
PGBENCH = (
    "\\set zone random(1, :zones)\n\\set plate random(10000, 99999)\n"
    + CEILING.replace("%s", ":zone", 1).replace("%s", ":plate", 1)
    + ";\n"
)


def make_tables(connection: psycopg.Connection, zones: int, capacity: int) -> None:
    """Make the reference tables with `zones` zones, ids 1 to `zones`, each with room for `capacity` vehicles."""
    connection.execute(TABLES)
    connection.execute("INSERT INTO ref_zone SELECT n, 0, %s FROM generate_series(1, %s) n", (capacity, zones))
    query = "INSERT INTO ref_plate SELECT n, n %% %s + 1, '30A-' || n FROM generate_series(1, %s) n"
    connection.execute(query, (zones, PLATES))
    connection.execute("ANALYZE ref_zone, ref_plate")


def are_made(connection: psycopg.Connection) -> bool:
    """Whether the reference tables are there: the last that is made of a bench's database."""
    row = connection.execute("SELECT EXISTS (SELECT FROM pg_tables WHERE tablename = 'ref_plate')").fetchone()
    return bool(row and row[0])


def create_application(database_url: str) -> Flask:
    """The reference application. A connection is made when a thread serves its first request."""
    application = Flask("reference", static_folder=None)
    local = threading.local()

    def connection() -> psycopg.Connection[Any]:
        if not hasattr(local, "connection"):
            local.connection = psycopg.connect(database_url, autocommit=True)
        return local.connection

    @application.post("/ceiling")
    def ceiling() -> Response:
        body = orjson.loads(request.get_data())
        row = connection().execute(CEILING, (body["zone"], body["plate"])).fetchone()
        if row is None:
            return Response(b'{"full":true}', 409, mimetype="application/json")
        return Response(orjson.dumps({"id": row[0]}), 201, mimetype="application/json")

    @application.get("/read/<int:number>")
    def bare_read(number: int) -> Response:
        row = connection().execute(READ, (number,)).fetchone()
        if row is None:
            return Response(b'{"unknown":true}', 404, mimetype="application/json")
        return Response(orjson.dumps({"id": number, "zone": row[0], "plate": row[1]}), mimetype="application/json")

    @application.get("/bytes")
    def bare_bytes() -> Response:
        return Response(_answer(), mimetype="application/geo+json")

    @application.get("/readyz")
    def ready() -> dict[str, str]:
        return {"status": "ready"}

    return application


@cache
def _answer() -> bytes:
    """What /bytes answers with: read once, when it is first asked for."""
    return Path(os.environ[BYTES_FILE]).read_bytes()


def __getattr__(name: str) -> Flask:
    """`application`, made only where a server asks for it: whoever imports the SQL above needs no database."""
    if name != "application":
        raise AttributeError(name)
    return create_application(os.environ["IPARKING_DATABASE_URL"])
