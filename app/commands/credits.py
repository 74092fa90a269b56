"""`./iparking credits`: money that came by bank or VNPay, and of which nobody knows whose it is."""

from datetime import UTC, datetime

import click

from app.cli import HELP, as_json, database, fail, report


@click.group(context_settings=HELP)
def credits() -> None:
    """Money that came and names no payment of ours."""


@credits.command("list")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="At most so many, oldest first.")
@database
@as_json
def list_(limit: int, database: str, json_: bool) -> None:
    """List what is not booked yet, because nobody knows whose it is.

    \b
    Example: ./iparking credits list --json
    """
    from app.archiving import opened
    from billing import transfers

    with opened(database) as connection:
        found = transfers.unmatched(connection, limit)
    rows = [one._asdict() | {"at": one.at.isoformat()} for one in found]
    lines = [
        f"{one.gateway}  {one.transaction}  {one.amount:,} VND  {one.at:%F %T%z}  {one.description}" for one in found
    ]
    report({"credits": rows}, json_, "\n".join(lines) or "every credit has its owner")


@credits.command("assign")
@click.argument("transaction")
@click.argument("client")
@click.option("--gateway", default="vietqr", show_default=True, type=click.Choice(["vietqr", "vnpay"]), help="Whence.")
@database
@as_json
def assign(transaction: str, client: str, gateway: str, database: str, json_: bool) -> None:
    """Give the money of TRANSACTION (the bank's id) to the wallet of CLIENT.

    \b
    Example: ./iparking credits assign FT26330001 driver-7
    """
    from app.archiving import opened
    from billing import transfers
    from billing.errors import UnknownCredit

    with opened(database) as connection:
        try:
            transfers.assign(connection, gateway, transaction, client, datetime.now(UTC))
        except UnknownCredit as error:
            fail(str(error))
    report({"assigned": transaction, "client": client}, json_, f"{transaction} is in the wallet of {client}")
