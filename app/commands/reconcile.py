"""`./iparking reconcile`: a day's money, as the gateways list it, beside the ledger."""

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from app.cli import HELP, as_json, database, fail, report

a_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(context_settings=HELP)
@click.option("--date", "day", required=True, type=click.DateTime(["%Y-%m-%d"]), help="A day of Hanoi.")
@click.option("--statement", type=a_file, help="The bank's statement of the account that receives transfers (CSV).")
@click.option("--vnpay", type=a_file, help="VNPay's list of what it settles (CSV).")
@database
@as_json
def reconcile(day: datetime, statement: Path | None, vnpay: Path | None, database: str, json_: bool) -> None:
    """Compare the ledger of a day with the gateways' own lists, heal what is ours to, and list the rest.

    Exit code 1: a list cannot be had, and nothing was compared; or something is left that nothing explains. Without a
    file the ledger is compared with the credits that the bank or VNPay told of at the time.

    \b
    Example: ./iparking reconcile --date 2026-10-14 --statement bank.csv
    """
    from app import reconcile as money
    from billing.errors import GatewayUnavailable, MethodUnavailable
    from billing.imports.report import ImportRefused
    from billing.reconcile.lists import WrongDay

    with money.opened(database) as resources:
        try:
            found = money.run(resources, day.date(), money.Files(statement, vnpay)).as_dict()
        except (GatewayUnavailable, ImportRefused, MethodUnavailable, WrongDay) as error:
            fail(f"nothing was reconciled: {error}")
    report(found, json_, "\n".join(_lines(found)))
    if found["unexplained"]:
        raise SystemExit(1)


def _lines(found: dict[str, Any]) -> list[str]:
    """The result in words."""
    lines = [
        f"{found['date']}: {found['payments']:,} payments, {found['differences']:,} differences "
        f"({found['healed']:,} healed, {found['open']:,} open), {found['unexplained']:,} VND unexplained"
    ]
    for one in found["gateways"]:
        lines.append(
            f"  {one['gateway']:<8}{one['theirs']:>16,} VND by its {one['source']}, "
            f"{one['ours']:,} by the ledger, {one['fees']:,} of fees"
        )
    lines += [f"  {kind:<20}{sums['count']:>7,}  {sums['amount']:>+14,} VND" for kind, sums in found["kinds"].items()]
    return lines + [_line(one) for one in found["list"] if one["state"] == "open"]


def _line(one: dict[str, Any]) -> str:
    why = f" ({one['error']})" if one["error"] else ""
    return f"  {one['gateway']} {one['reference']}: {one['kind']}, {one['amount']:+,} VND: {one['next']}{why}"
