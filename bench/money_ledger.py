"""How long `./iparking ledger check` takes over a ledger of millions of entries, and how much memory.

The ledger is loaded in bulk from finished sessions of thirteen months (bench/history.py), as if each had been paid from
its driver's wallet: two entries fund a wallet, three charge a session.
"""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any

import psycopg

from app.stack import Stack, prepare_database
from app.stack.machine import PROJECT, with_database
from bench import history
from bench.core import progress
from bench.errors import BenchError

DATABASE = "bench_ledger"
ENTRIES = 10_000_000
MOST_SECONDS = 60.0
MOST_MB = 500.0
FUNDS = 10**9
# A transaction and its three entries were 640 bytes with their indexes when measured.
BYTES_A_SESSION = 700
LOADING = (
    "-c session_replication_role=replica -c synchronous_commit=off -c maintenance_work_mem=512MB -c work_mem=256MB"
)
STEPS = (
    "DROP INDEX ledger_entry_account",
    """INSERT INTO ledger_account (code)
       SELECT 'wallet/' || c.client FROM (SELECT DISTINCT client FROM parking_session WHERE fee > 0) c
        UNION ALL SELECT DISTINCT 'revenue/' || z.district_code || '/iparking' FROM zone z
        UNION ALL VALUES ('vat'), ('funding')""",
    """INSERT INTO ledger_transaction (id, kind, reference, at)
       SELECT uuid_of(b.began), 'funding', a.owner, b.began
         FROM ledger_account a, (SELECT min(started_at) - interval '1 hour' AS began FROM parking_session) b
        WHERE a.kind = 'wallet'""",
    """INSERT INTO ledger_entry
       SELECT t.id, m.account_id, m.amount
         FROM ledger_transaction t JOIN ledger_account w ON w.code = 'wallet/' || t.reference
         JOIN ledger_account f ON f.code = 'funding'
        CROSS JOIN LATERAL (VALUES (f.id, %(funds)s), (w.id, -%(funds)s)) m(account_id, amount)""",
    """INSERT INTO ledger_transaction (id, kind, reference, at)
       SELECT id, 'parking', id::text, received_at FROM parking_session WHERE fee > 0""",
    """INSERT INTO ledger_entry
       SELECT s.id, m.account_id, m.amount
         FROM (SELECT p.id, p.client, p.zone_code, p.fee,
                      vat_net(p.fee, (SELECT v.basis_points FROM vat_rate v WHERE v.valid_from <= p.received_at
                                       ORDER BY v.valid_from DESC LIMIT 1)) AS net
                 FROM parking_session p WHERE p.fee > 0) s
         JOIN ledger_account w ON w.code = 'wallet/' || s.client
         JOIN zone z ON z.code = s.zone_code AND z.valid_to IS NULL
         JOIN ledger_account r ON r.code = 'revenue/' || z.district_code || '/iparking'
         JOIN ledger_account v ON v.code = 'vat'
        CROSS JOIN LATERAL (VALUES (w.id, s.fee), (r.id, -s.net), (v.id, s.net - s.fee)) m(account_id, amount)
        WHERE m.amount <> 0""",
    "CREATE INDEX ledger_entry_account ON ledger_entry (account_id, transaction_id) INCLUDE (amount)",
    """INSERT INTO wallet (owner, kind, balance)
       SELECT a.owner, 'wallet', -sum(e.amount) FROM ledger_entry e JOIN ledger_account a ON a.id = e.account_id
        WHERE a.kind = 'wallet' GROUP BY a.owner""",
    "VACUUM (ANALYZE) ledger_account, ledger_transaction, ledger_entry, wallet",
)


def ledger_check(stack: Stack, entries: int = ENTRIES) -> dict[str, Any]:
    """Load a ledger of about so many entries and prove it with the command, in a process of its own.

    `entries` as they were, `seconds`, `rss_mb` (the largest of the command), `ok`, and `met`. Raises BenchError.
    """
    now = datetime.now(UTC)
    url = prepare_database(stack, DATABASE, fresh=True)
    try:
        sessions = max((entries - 2 * min(history.CLIENTS, entries // 10)) // 3, 1)
        history.require_space(
            stack.folders.data, sessions * (history.BYTES_A_SESSION + BYTES_A_SESSION) // history.BYTES_A_SESSION
        )
        with psycopg.connect(url) as connection:
            zones = [row[0] for row in connection.execute("SELECT code FROM zone WHERE valid_to IS NULL ORDER BY code")]
        progress(f"loading {sessions:,} sessions")
        history.fill(url, sessions, now, zones)
        booked = book(with_database(stack.admin_url(), DATABASE))
        progress(f"checking {booked:,} entries")
        found = _timed(DATABASE)
    finally:
        stack.drop_database(DATABASE)
    met = found["ok"] and found["seconds"] <= MOST_SECONDS and found["rss_mb"] <= MOST_MB
    return {"entries": booked, **found, "most_seconds": MOST_SECONDS, "most_mb": MOST_MB, "met": met}


def book(admin_url: str) -> int:
    """Book all finished sessions of a database whose ledger is empty, as its superuser; the number of entries."""
    with psycopg.connect(admin_url, autocommit=True, options=LOADING) as connection:
        for step in STEPS:
            connection.execute(step, {"funds": FUNDS} if "%(funds)s" in step else None)
        row = connection.execute("SELECT count(*) FROM ledger_entry").fetchone()
    assert row is not None
    return int(row[0])


def _timed(database: str) -> dict[str, Any]:
    began = time.monotonic()
    command = [sys.executable, "-m", "app.cli", "ledger", "check", "--database", database, "--json"]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        output = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in (0, 1) or not output:
        raise BenchError(f"ledger check ended with {child.returncode}")
    seconds = time.monotonic() - began
    return {"seconds": round(seconds, 1), "rss_mb": round(usage.ru_maxrss / 1024, 1), "ok": json.loads(output)["ok"]}
