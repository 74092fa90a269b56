"""`./iparking calls`: what we asked of a card gateway, and what it would not do."""

from datetime import UTC, datetime

import click

from app.cli import HELP, as_json, database, fail, report


@click.group(context_settings=HELP)
def calls() -> None:
    """What we asked of a card gateway."""


@calls.command("list")
@click.option("--parked", is_flag=True, help="Only those that were given up.  [default: those that wait, too]")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="At most so many, newest first.")
@database
@as_json
def list_(parked: bool, limit: int, database: str, json_: bool) -> None:
    """List calls that wait for an answer, or are parked: by a mistake of ours, or because the gateway does not do that.

    \b
    Example: ./iparking calls list --parked
    """
    from app.archiving import opened
    from billing.calls import listed

    with opened(database) as connection:
        found = listed(connection, ["parked"] if parked else ["parked", "waiting"], limit)
    rows = [one._asdict() | {"made_at": one.made_at.isoformat()} for one in found]
    lines = [
        f"{one.key}  {one.amount:,} VND of {one.client}  {one.state} ({one.tries} tries)  {one.error or ''}"
        for one in found
    ]
    report({"calls": rows}, json_, "\n".join(lines) or "no such call")


@calls.command("retry")
@click.argument("key")
@database
@as_json
def retry(key: str, database: str, json_: bool) -> None:
    """Let the job make the parked call KEY once more: a capture, a release or a refund.

    Of a capture only what is still owed by then is taken, by a call with another key; nothing owed, it is a release.
    A hold or a charge is not made again: what is owed is collected by another call.

    \b
    Example: ./iparking calls retry 0199e5c4-0000-7000-8000-000000000000:refund:1
    """
    from app.archiving import opened
    from billing import calls
    from billing.errors import UnknownCall

    with opened(database) as connection:
        try:
            calls.retry(connection, key, datetime.now(UTC))
        except UnknownCall as error:
            fail(str(error))
    report({"retried": key}, json_, f"{key} is made again within seconds")


@calls.command("give-up")
@click.argument("key")
@database
@as_json
def give_up(key: str, database: str, json_: bool) -> None:
    """Do not ask for the parked refund KEY any more: the money goes to the driver's wallet.

    \b
    Example: ./iparking calls give-up 0199e5c4-0000-7000-8000-000000000000:refund:1
    """
    from app.archiving import opened
    from billing import calls
    from billing.errors import UnknownCall

    with opened(database) as connection:
        try:
            calls.give_up(connection, key)
        except UnknownCall as error:
            fail(str(error))
    report({"given_up": key}, json_, f"the money of {key} is in the wallet within seconds")
