"""`./iparking einvoices`: those that the tax authority has not accepted."""

from datetime import UTC, datetime
from uuid import UUID

import click

from app.cli import HELP, as_json, database, fail, report


@click.group(context_settings=HELP)
def einvoices() -> None:
    """E-invoices on their way to the tax authority."""


@einvoices.command("list")
@click.option("--rejected", is_flag=True, help="Only those that were refused.  [default: all but the accepted]")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="At most so many, newest first.")
@database
@as_json
def list_(rejected: bool, limit: int, database: str, json_: bool) -> None:
    """List e-invoices that wait, were sent and not answered, or were rejected, with the reason.

    \b
    Example: ./iparking einvoices list --rejected
    """
    from app.archiving import opened
    from billing.einvoices.store import listed

    with opened(database) as connection:
        found = listed(connection, ["rejected"] if rejected else ["rejected", "sent", "pending"], limit)
    rows = [
        one._asdict()
        | {"id": str(one.id)}
        | {name: at and at.isoformat() for name in ("next_try_at", "settled_at") for at in [getattr(one, name)]}
        for one in found
    ]
    lines = [f"{one.id}  {one.sign} {one.number}  {one.state} ({one.tries} tries)  {one.error or ''}" for one in found]
    report({"einvoices": rows}, json_, "\n".join(lines) or "no such e-invoice")


@einvoices.command("retry")
@click.argument("ids", metavar="[ID]...", nargs=-1, type=click.UUID)
@click.option("--all", "all_", is_flag=True, help="All that were rejected.")
@database
@as_json
def retry(ids: tuple[UUID, ...], all_: bool, database: str, json_: bool) -> None:
    """Make the rejected e-invoices ID anew and send them, once what was wrong (the seller's address, say) is put right.

    All of them, or none.

    \b
    Example: ./iparking einvoices retry 0199e5c4-0000-7000-8000-000000000000
    """
    from app.archiving import opened
    from billing.einvoices import store

    if bool(ids) == all_:
        raise click.UsageError("name the e-invoices, or say --all")
    with opened(database) as connection, connection.transaction():
        made = store.rejected(connection) if all_ else list(dict.fromkeys(ids))
        if store.make_anew(connection, made, datetime.now(UTC)) < len(made):
            fail("not all of these are rejected: nothing was changed")
    retried = [str(one) for one in made]
    report({"retried": retried}, json_, f"{len(retried)} are made and sent within seconds")
