"""The command line: `./iparking VERB`. Each verb loads what it needs when it runs, so that --help is quick."""

import importlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import click

PROGRAM = "./iparking"
ENVIRONMENTS = ("production", "development", "test", "simulation")
KINDS = ("districts", "wards", "zones", "rates", "statement")
# How long a command waits for Redis where no request waits for the command.
PATIENT_SECONDS = 5.0
# Of every command of this package.
HELP: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

as_json = click.option("--json", "json_", is_flag=True, help="Print JSON, and nothing else, on standard output.")
database = click.option("--database", default="iparking", show_default=True, help="Name of the database.")


@click.group(context_settings=HELP)
def cli() -> None:
    """iParking: smart parking for Hanoi's nine service districts, and the simulator that proves it.

    The servers that it needs (PostgreSQL, Redis) are private ones under .iparking/, unless IPARKING_DATABASE_URL and
    IPARKING_REDIS_URL name others.
    """


def say(text: str) -> None:
    """Progress, for people: on standard error, so that standard output holds results alone."""
    click.echo(text, err=True)


def report(result: Any, json_: bool, text: str) -> None:
    """The result of a verb: as JSON or in words."""
    click.echo(json.dumps(result, ensure_ascii=False, indent=2) if json_ else text)


# --- the service ------------------------------------------------------------------------------------------------------
@cli.command()
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="Port of the API.")
@click.option("--workers", type=click.IntRange(1, 64), help="Processes of the API.  [default: one a core]")
@click.option("--threads", type=click.IntRange(1, 128), help="Threads of each process.  [default: 16]")
@click.option("--detach", is_flag=True, help="Go on serving in the background; return once it is ready.")
@database
@click.option(
    "--env",
    type=click.Choice(ENVIRONMENTS),
    default=lambda: os.environ.get("IPARKING_ENV", "production"),
    help="What it serves for; a simulation may have a clock of its own.  [default: IPARKING_ENV, else production]",
)
@click.option("--drivers", default=0, show_default=True, help="Keys of so many single drivers (for a simulation).")
@as_json
def up(json_: bool, detach: bool, **options: Any) -> None:
    """Start everything and serve the API until Ctrl-C (or `down`).

    A simulation takes its clock from IPARKING_CLOCK_START (RFC 3339) and IPARKING_CLOCK_SPEED.

    \b
    Example: ./iparking up --detach --port 8000
    """
    from app.stack import up as service
    from app.stack.machine import default_root

    given = {name: value for name, value in options.items() if value is not None}
    wanted = service.Options(**given, **_clock(options["env"]))
    if detach:
        service.detach(default_root(), wanted, say)
    else:
        service.run(default_root(), wanted, say)
    if json_ and detach:
        report(service.serving(default_root()), json_, "")


def _clock(env: str) -> dict[str, Any]:
    """The clock that the environment asks for, which only a simulation has."""
    from app.config import BadSetting

    start, speed = os.environ.get("IPARKING_CLOCK_START"), os.environ.get("IPARKING_CLOCK_SPEED")
    if env != "simulation" or not start:
        return {}
    try:
        instant = datetime.fromisoformat(start)
        clock = {"clock_start": instant, "clock_speed": float(speed or 1.0)}
    except ValueError as error:
        raise BadSetting(f"IPARKING_CLOCK_START or _SPEED: {error}") from None
    if instant.tzinfo is None:
        raise BadSetting("IPARKING_CLOCK_START: the offset is missing")
    return clock


@cli.command()
@as_json
def down(json_: bool) -> None:
    """Stop all that runs here: the API, the jobs, the private servers, what a demo left.

    \b
    Example: ./iparking down
    """
    from app.stack import up as service
    from app.stack.machine import default_root

    stopped = service.down(default_root())
    report({"stopped": stopped}, json_, f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


@cli.command()
@as_json
def status(json_: bool) -> None:
    """Say what runs here, and where it serves.

    \b
    Example: ./iparking status --json
    """
    from app.stack import up as service
    from app.stack.machine import default_root

    found = service.status(default_root())
    lines = [f"serving on {found['serving']['url']}" if found["serving"] else "not serving"]
    lines += [_server_line(name, state) for name, state in found["servers"].items()]
    lines += [f"{name}: process {pid}" for name, pid in found["processes"].items() if name not in found["servers"]]
    report(found, json_, "\n".join(lines))


def _server_line(name: str, state: dict[str, Any]) -> str:
    if state["given"]:
        return f"{name}: the server that the environment names"
    running = f"process {state['process']} on port {state['port']}" if state["running"] else "not running"
    return f"{name}: {running}"


# --- data -------------------------------------------------------------------------------------------------------------
@cli.group()
def db() -> None:
    """The database's schema."""


@db.command("upgrade")
@database
@as_json
def db_upgrade(database: str, json_: bool) -> None:
    """Bring a database to the newest schema; it is made if there is none.

    \b
    Example: ./iparking db upgrade --database iparking
    """
    from app.database import upgrade
    from app.stack import Stack

    with Stack() as stack:
        upgrade(stack.create_database(database))
    report({"database": database, "schema": "newest"}, json_, f"{database} has the newest schema")


@cli.command("import")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Check the file and say what would change, but change nothing.")
@database
@as_json
def import_(kind: Any, file: Path, dry_run: bool, database: str, json_: bool) -> None:
    """Import districts, wards, zones or rates from a GeoJSON or CSV FILE: all of it or nothing.

    A statement is a bank's, as CSV: credits in it that name a payment are booked, each once, however often it is read.

    \b
    Example: ./iparking import zones zones.geojson --dry-run
    Example: ./iparking import statement november.csv --json
    """
    from app.importing import REFUSALS, import_file
    from app.stack import Stack, find_database, prepare_database

    with Stack() as stack:
        url = (find_database if dry_run else prepare_database)(stack, database)
        try:
            done = import_file(url, kind, file, datetime.now(UTC), dry_run)
        except REFUSALS as error:
            report({"kind": kind, "imported": False, **error.as_dict()}, json_, _table(error.records))
            raise SystemExit(1) from None
    text = "\n".join([_summary(done.as_dict()), *getattr(done, "lines", ())])
    report({"imported": not dry_run, **done.as_dict()}, json_, text)


def _summary(done: dict[str, Any]) -> str:
    counts = ", ".join(
        f"{name}: {value}" for name, value in done.items() if isinstance(value, int) and name != "dry_run"
    )
    return f"{'would import' if done.get('dry_run') else 'imported'} {done.get('kind', '')} ({counts})"


def _table(records: list[Any]) -> str:
    """The bad records as a table: where, id, field, rule, what was found."""
    rows = [("where", "id", "field", "rule", ""), *(_row(record) for record in records)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip() for row in rows
    ]
    return "\n".join([*lines, f"nothing was imported: {len(records)} bad record{'s'[: len(records) != 1]}"])


def _row(record: Any) -> tuple[str, ...]:
    return (*(str(getattr(record, name) or "-") for name in ("where", "id", "field", "rule")), str(record.detail))


@cli.command()
@database
@as_json
def rebuild(database: str, json_: bool) -> None:
    """Overwrite the copies in Redis with what PostgreSQL holds.

    \b
    Example: ./iparking rebuild
    """
    import contextlib

    import psycopg

    from app.config import Settings
    from app.database import database_id
    from app.resources import make_redis
    from app.stack import Stack, find_database
    from zones import occupancy

    with Stack() as stack, psycopg.connect(find_database(stack, database)) as connection:
        settings = Settings(stack.database_url(database), stack.redis_url, redis_timeout_seconds=PATIENT_SECONDS)
        with contextlib.closing(make_redis(settings)) as redis:
            written = occupancy.rebuild(connection, occupancy.Copies(redis, database_id(connection)))
    report({"database": database, "copies": written}, json_, f"{written} counts copied to Redis")


@cli.group()
def archive() -> None:
    """Months of finished sessions that are long over, as Parquet files.

    The jobs archive by themselves where IPARKING_ARCHIVE_FOLDER is set.
    """


archive_folder = click.option(
    "--folder",
    envvar="IPARKING_ARCHIVE_FOLDER",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the files lie.  [default: IPARKING_ARCHIVE_FOLDER]",
)


@archive.command("list")
@database
@as_json
def archive_list(database: str, json_: bool) -> None:
    """Say which months were archived.

    \b
    Example: ./iparking archive list --json
    """
    from app.archiving import opened
    from zones import archive

    with opened(database) as connection:
        found = [archive.described(entry) for entry in archive.entries(connection)]
    lines = [f"{one['month']}  {one['state']:<9}{one['rows']:>12,} sessions  {one['file']}" for one in found]
    report({"months": found}, json_, "\n".join(lines) or "no month was archived")


@archive.command("run")
@archive_folder
@click.option("--after-months", envvar="IPARKING_ARCHIVE_AFTER_MONTHS", default=13, show_default=True,
              type=click.IntRange(2), help="Months that ended so many months ago, or before.")  # fmt: skip
@click.option("--month", type=click.DateTime(["%Y-%m"]), help="This month only, also where it was restored.")
@database
@as_json
def archive_run(database: str, folder: Path, after_months: int, month: datetime | None, json_: bool) -> None:
    """Archive the months that are old enough: into a file each, compared, and only then dropped.

    \b
    Example: ./iparking archive run --folder /srv/archive
    """
    from app.archiving import opened
    from zones import archive

    only = month.date() if month else None
    with opened(database) as connection:
        done = archive.run(connection, folder, datetime.now(UTC), after_months, only)
    names = [f"{one:%Y-%m}" for one in done]
    nothing = "nothing was archived: no such month is old enough, or a session that began in it or before still runs"
    report({"archived": names}, json_, f"archived: {', '.join(names)}" if names else nothing)


@archive.command("restore")
@click.argument("month", metavar="MONTH", type=click.DateTime(["%Y-%m"]))
@archive_folder
@database
@as_json
def archive_restore(month: datetime, database: str, folder: Path, json_: bool) -> None:
    """Bring a MONTH (2025-03) back into the database, where it stays until `archive run --month`.

    \b
    Example: ./iparking archive restore 2025-03 --folder /srv/archive
    """
    from app.archiving import opened
    from zones import archive

    with opened(database) as connection:
        rows = archive.restore(connection, folder, month.date(), datetime.now(UTC))
    report({"restored": f"{month:%Y-%m}", "rows": rows}, json_, f"{month:%Y-%m} is back: {rows} sessions")


# --- proof ------------------------------------------------------------------------------------------------------------
@cli.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--deep", is_flag=True, help="Search longer in the property tests.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(deep: bool, arguments: tuple[str, ...]) -> None:
    """Run the linters and the tests on private servers; ARGUMENTS go to pytest (and leave the linters out).

    IPARKING_TEST_SEED, which is printed, gives the order in which things are broken.

    \b
    Example: ./iparking test tests/zones -k plates
    """
    from app import testing

    raise SystemExit(testing.run(deep, list(arguments), say))


def _handed_over(module: str, name: str, arguments: tuple[str, ...], verb: str) -> None:
    """Run a command that another module defines, which is loaded now."""
    command: click.Command = getattr(importlib.import_module(module), name)
    command.main(list(arguments), prog_name=f"{PROGRAM} {verb}", standalone_mode=False)


def _hand_over(verb: str, module: str, name: str, help_: str, group: click.Group = cli) -> None:
    """Add a verb whose own module knows its options, --help among them."""
    whole = verb if group is cli else f"{group.name} {verb}"

    @group.command(
        verb,
        short_help=help_,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def handed_over(arguments: tuple[str, ...]) -> None:
        _handed_over(module, name, arguments, whole)


_hand_over("demo", "app.demo", "demo", "Start everything, replay a morning of traffic on it and prove the result.")
_hand_over("ledger", "app.commands.ledger", "ledger", "Prove the money, or export it.")
_hand_over("reconcile", "app.commands.reconcile", "reconcile", "Compare a day's money with the gateways' own lists.")
_hand_over("simulate", "simulator.cli", "simulate", "Make, convert and replay traffic, and audit the answers.")
_hand_over("calls", "app.commands.calls", "calls", "What a card gateway did not do: list it, have it done, give it up.")
_hand_over("credits", "app.commands.credits", "credits", "Money that came of which nobody knows whose it is.")
_hand_over("einvoices", "app.commands.einvoices", "einvoices", "E-invoices: list the rejected, make them anew.")
_hand_over("webhooks", "app.commands.webhooks", "webhooks", "Events of payment services: list the parked, retry one.")


@cli.group()
def bench() -> None:
    """Measure the service on this machine."""


_hand_over("core", "bench.cli", "core", "The service's calls beside bare references; growth, soak, profile.", bench)
_hand_over("money", "bench.cli", "money", "Wallet starts and stops beside free ones; a large ledger's check.", bench)


@bench.command()
@click.option("--rounds", type=click.IntRange(1), help="How many rounds.  [default: 7]")
@click.option("--seconds", type=click.IntRange(1), help="Length of each burst.  [default: 3]")
@as_json
def pooler(json_: bool, **given: int | None) -> None:
    """Starts and stops through a PgBouncer in transaction mode beside direct ones, in alternating rounds.

    \b
    Example: ./iparking bench pooler --rounds 3
    """
    from bench.pooler import run

    raise SystemExit(run(json=json_, **{name: value for name, value in given.items() if value is not None}))


@bench.command()
@click.option("--seed", default=1, show_default=True, help="Another seed, another order of the faults.")
@click.option("--fault", "names", multiple=True, help="Only this fault; may be repeated.  [default: all]")
@click.option("--rate", type=click.FloatRange(1), help="Vehicles a second, each of some 2.4 requests.")
@as_json
def faults(json_: bool, names: tuple[str, ...], **given: Any) -> None:
    """Break one thing at a time under load, and prove that no start is lost or doubled and no count wrong.

    \b
    Example: ./iparking bench faults --json
    """
    from bench.faults import run

    chosen = {name: value for name, value in given.items() if value is not None}
    raise SystemExit(run(json=json_, names=names, **chosen))


def fail(text: str, code: int = 1) -> NoReturn:
    """End with one line on standard error."""
    say(f"iparking: {text}")
    raise SystemExit(code)


def known_failures() -> dict[type[BaseException], str]:
    """What ends in one clear line, and with what before it; anything else is our fault and keeps its traceback."""
    import psycopg
    import redis

    from app.config import BadSetting
    from app.stack.errors import StackError
    from bench.errors import BenchError
    from zones.archive import ArchiveError
    from zones.occupancy import CopiesAway
    from zones.parquet import UnknownColumns

    return {
        ArchiveError: "",
        UnknownColumns: "",
        StackError: "",
        BadSetting: "",
        BenchError: "",
        psycopg.OperationalError: "PostgreSQL: ",
        redis.RedisError: "Redis: ",
        CopiesAway: "Redis does not answer",
        OSError: "",
    }


def main() -> None:
    """Run the command line; the exit code says how it went (2: wrong arguments, 3: something is missing here)."""
    try:
        cli.main(prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except (click.Abort, KeyboardInterrupt):
        raise SystemExit(130) from None
    except Exception as error:
        for kind, before in known_failures().items():
            if isinstance(error, kind):
                fail(before + str(error).strip().partition("\n")[0])
        raise


if __name__ == "__main__":
    main()
