"""`./iparking ledger`: prove what was booked, and hand it to others' tools."""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import click
import psycopg
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from app.cli import HELP
from billing.check import Proof

as_json = click.option("--json", "json_", is_flag=True, help="Print JSON, and nothing else, on standard output.")
database = click.option("--database", default="iparking", show_default=True, help="Name of the database.")
# What the ledger must have charged: `received_at` is the instant of a stop, at which it is booked.
SESSIONS = "SELECT s.id, s.fee, s.received_at AS ended_at FROM parking_session s"


@click.group(context_settings=HELP)
def ledger() -> None:
    """The money: prove the ledger, or export it.

    The private servers are started where they do not run.
    """


@ledger.command()
@database
@as_json
def check(database: str, json_: bool) -> None:
    """Prove what holds of all that was booked; exits 1 where it does not.

    \b
    Example: ./iparking ledger check --database demo
    """
    from app.archiving import opened

    with opened(database) as connection:
        proofs = prove(connection)
    if json_:
        result = {"database": database, "ok": not broken(proofs), "invariants": [one.as_dict() for one in proofs]}
        click.echo(json.dumps(result, ensure_ascii=False, indent=2))
    else:
        show(proofs)
    raise SystemExit(1 if broken(proofs) else 0)


def prove(connection: psycopg.Connection) -> list[Proof]:
    """The proofs of a database with sessions, with progress on standard error."""
    from billing.check import check

    with Console(stderr=True).status("reading the ledger") as status:
        return check(connection, SESSIONS, lambda name: status.update(f"reading the ledger: {name}"))


def broken(proofs: Sequence[Proof]) -> list[Proof]:
    """Those that do not hold."""
    return [one for one in proofs if one.wrong]


def show(proofs: Sequence[Proof]) -> None:
    """A table of all, and the first offenders of those that are broken."""
    console = Console()
    table = Table("invariant", "what it says")
    for column in ("checked", "wrong"):
        table.add_column(column, justify="right")
    for one in proofs:
        table.add_row(one.name, one.says, f"{one.checked:,}", f"{one.wrong:,}", style="red" if one.wrong else None)
    console.print(table)
    for one in broken(proofs):
        for offender in one.first:
            console.print(f"{one.name}: {offender}", style="red", markup=False, soft_wrap=True)


@ledger.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--format", "format_", type=click.Choice(["beancount"]), default="beancount", show_default=True)
@database
@as_json
def export(file: Path, format_: str, database: str, json_: bool) -> None:
    """Write all that was booked to FILE, as one instant has it.

    The file is written whole or not at all.

    \b
    Example: ./iparking ledger export ledger.beancount && bean-check ledger.beancount
    """
    from app.archiving import opened
    from billing import beancount

    with opened(database) as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        transactions = beancount.size(connection)
        with whole_file(file) as out, _progress() as bar:
            task = bar.add_task("writing", total=transactions)
            for piece in beancount.lines(connection):
                out.write(piece)
                bar.advance(task, piece.startswith("\n2"))  # a transaction
    result = {"file": str(file), "format": format_, "transactions": transactions, "bytes": file.stat().st_size}
    click.echo(json.dumps(result, indent=2) if json_ else f"{file}: {transactions:,} transactions")


def _progress() -> Progress:
    return Progress(*Progress.get_default_columns(), console=Console(stderr=True))


@contextmanager
def whole_file(file: Path) -> Iterator[TextIO]:
    """A file beside `file`, which takes its place, and is kept by the disk, once it was written to the end. Raises
    OSError."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    try:
        with open(handle, "w", encoding="utf-8") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.chmod(name, 0o600)  # money and its owners are nobody else's business
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise
