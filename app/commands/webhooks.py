"""`./iparking webhooks`: events that payment services sent, and that nothing could be made of."""

from datetime import UTC, datetime

import click

from app.cli import HELP, as_json, database, fail, report


@click.group(context_settings=HELP)
def webhooks() -> None:
    """Events that payment services sent us."""


@webhooks.command("list")
@click.option("--parked", is_flag=True, help="Only those that were tried in vain.  [default: all but the handled]")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="At most so many, newest first.")
@database
@as_json
def list_(parked: bool, limit: int, database: str, json_: bool) -> None:
    """List events that wait, are of a kind unknown to us, or are parked.

    \b
    Example: ./iparking webhooks list --parked
    """
    from app.archiving import opened
    from billing.webhooks import listed

    with opened(database) as connection:
        found = listed(connection, ["parked"] if parked else ["parked", "waiting", "unknown"], limit)
    rows = [one._asdict() | {"received_at": one.received_at.isoformat()} for one in found]
    lines = [
        f"{one.gateway}  {one.id}  {one.kind}  {one.state} ({one.tries} tries)  {one.error or ''}" for one in found
    ]
    report({"events": rows}, json_, "\n".join(lines) or "no such event")


@webhooks.command("retry")
@click.argument("id_", metavar="ID")
@click.option("--gateway", default="stripe", show_default=True, help="Who sent it.")
@database
@as_json
def retry(id_: str, gateway: str, database: str, json_: bool) -> None:
    """Let the job handle the event ID once more.

    \b
    Example: ./iparking webhooks retry evt_1
    """
    from app.archiving import opened
    from billing import webhooks
    from billing.errors import UnknownEvent

    with opened(database) as connection:
        try:
            webhooks.retry(connection, gateway, id_, datetime.now(UTC))
        except UnknownEvent as error:
            fail(str(error))
    report({"retried": id_}, json_, f"{id_} is handled again within seconds")
