"""Test money: outside production every driver's wallet is funded once, so that whoever tries the service can park."""

import json

import psycopg

from app.clock import make_clock
from app.config import Settings
from billing import ledger

FUNDS = 10_000_000


def fund_wallets(settings: Settings, amount: int = FUNDS) -> None:
    """Give the drivers of the keys file `amount` VND each, once for a database. In production nothing is done.

    Raises psycopg.Error.
    """
    if settings.environment == "production" or settings.keys_path is None:
        return
    keys = json.loads(settings.keys_path.read_text(encoding="utf-8"))
    drivers = ["driver", *(f"driver-{n}" for n, _ in enumerate(keys.get("drivers", []), 1))]
    with psycopg.connect(settings.database_url, connect_timeout=10, prepare_threshold=None) as connection:
        funded = {
            row[0] for row in connection.execute("SELECT reference FROM ledger_transaction WHERE kind = 'funding'")
        }
        missing = [driver for driver in drivers if driver not in funded]
        ledger.fund(connection, missing, amount, make_clock(settings).now())
