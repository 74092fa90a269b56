"""`./iparking simulate`: make, convert and replay traffic, and audit what the service answered.

Results go to standard output (JSON alone with --json), progress to standard error. Exit codes: 1 an audit found
divergences or a run was broken off, 2 wrong arguments or input.
"""

from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import click
import msgspec

from simulator import convert as recorded
from simulator import trace
from simulator.arrivals import HANOI
from simulator.city import CLASSES, City
from simulator.options import (
    DEFAULT_URL,
    LocalDay,
    TimeOfDay,
    Zone,
    as_json,
    berlin_file,
    check_output,
    choice,
    city_file,
    city_from,
    exclusive,
    keys_file,
    output,
    places,
    plain_errors,
    print_json,
    readings,
    report,
    service_url,
    window,
)
from simulator.tally import Tally, conversion_text, print_audit


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def simulate() -> None:
    """Make, convert and replay traffic, and audit the answers.

    \b
    Example:
      ./iparking simulate demand --date 2026-11-23 -o morning.jsonl
      ./iparking simulate replay morning.jsonl --answers morning.answers
      ./iparking simulate audit morning.answers
    """


@simulate.command()
@service_url
@city_file
@click.option("--date", "day", type=LocalDay(), help="Local day on which it begins.  [default: today in Hanoi]")
@click.option("--days", default=1, show_default=True, type=click.IntRange(1, 366), help="Days from there.")
@click.option("--from", "opens", type=TimeOfDay(), default="07:00", show_default=True, help="On the first day.")
@click.option(
    "--to", "closes", type=TimeOfDay(), default="10:00", show_default=True, help="On the last; 00:00 is its end."
)
@click.option("--seed", default=7, show_default=True, type=click.IntRange(0), help="Another seed, another traffic.")
@click.option("--sessions", type=click.IntRange(1), help="How many starts there are, on average.")
@click.option("--scale", type=click.FloatRange(0, min_open=True), help="So many times the demand.  [default: 1]")
@click.option("--parameters", type=click.Path(path_type=Path), help="A changed copy of simulator/demand.toml.")
@output
@as_json
def demand(
    url: str | None,
    city_file: Path | None,
    day: date | None,
    days: int,
    opens: time,
    closes: time,
    seed: int,
    sessions: int | None,
    scale: float | None,
    parameters: Path | None,
    output: str,
    json_: bool,
) -> None:
    """Invent traffic by the demand model. The same city, parameters and seed give the same bytes.

    \b
    Example:
      ./iparking simulate demand --date 2026-11-23 --from 07:00 --to 10:00 -o morning.jsonl
      ./iparking simulate demand --city zones/data/zones.geojson --sessions 400000 -o large.jsonl.gz
    """
    from simulator import demand as model
    from simulator.parameters import DEFAULT_FILE, load

    exclusive(("--sessions", sessions), ("--scale", scale))
    exclusive(("--url", url), ("--city", city_file))
    check_output(output, json_)
    start, seconds = window(day or datetime.now(HANOI).date(), days, opens, closes)
    with plain_errors():
        city = city_from(url, city_file) or City.from_api(DEFAULT_URL)
        values = load(parameters or DEFAULT_FILE)
        head, events = model.make(city, values, start, seconds, seed=seed, scale=scale or 1.0, sessions=sessions)
        tally = Tally({zone.code: zone.district for zone in city.zones})
        trace.write(output, head, tally.watch(events, seconds))
    report(tally.result(output, head), json_, output, tally.text(output))


@simulate.command()
@click.argument("source", type=click.Choice(["berlin", "csv", "cds"]))
@click.argument("file", required=False)
@click.option("--zones", help="Codes of the zones onto which the spaces are spread evenly: CODE,CODE,...")
@click.option("--map", "map_file", type=click.Path(path_type=Path), help="CSV of space_id,zone instead of --zones.")
@click.option("--url", help="The service that knows the zones.")
@city_file
@click.option(
    "--max-stay",
    default=recorded.KERB_MAX_STAY_MINUTES,
    show_default=True,
    type=click.IntRange(1),
    help="Longest stay in minutes, where neither --url nor --city tells it.",
)
@click.option("--date", "day", type=LocalDay(), help="First local day of the record.  [default: all of it]")
@click.option("--days", default=1, show_default=True, type=click.IntRange(1, 3660), help="Days from --date.")
@click.option("--from", "opens", type=TimeOfDay(), default="00:00", show_default=True, help="On the first day.")
@click.option("--to", "closes", type=TimeOfDay(), default="00:00", help="On the last.  [default: its end]")
@click.option("--on", type=LocalDay(), help="The date in Hanoi that stands for the first day.  [default: the same]")
@click.option("--time-zone", type=Zone(), help="Of the record.  [default: by SOURCE]")
@click.option(
    "--flicker", default=recorded.FLICKER_MINUTES, show_default=True, type=click.FloatRange(0), help="In minutes."
)
@click.option("--outage", default=recorded.OUTAGE_HOURS, show_default=True, type=click.FloatRange(0), help="In hours.")
@click.option("--class", "vehicle_class", type=click.Choice(CLASSES), default="car", show_default=True)
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Of the invented plates.")
@output
@as_json
def convert(source: str, file: str | None, output: str, json_: bool, **options: Any) -> None:
    """Make a trace of recorded parking events, and say what was dropped.

    SOURCE is the form of FILE: csv (space_id,epoch_ms,occupied,utc), cds (JSON of CDS park_start and park_end events),
    or berlin: either of them, in Berlin's time, by default ../shared/data/replay/berlin_parking_events_2018.csv.

    Dropped are repeated readings, stays shorter than --flicker, and stays under way through a time of more than
    --outage hours in which no space was heard of.

    \b
    Example:
      ./iparking simulate convert berlin --zones HK-001,HK-002 --date 2018-01-25 -o berlin.jsonl
      ./iparking simulate convert cds events.json --zones BD-001 --days 7 --date 2026-03-02 -o week.jsonl
    """
    check_output(output, json_)
    path = file or berlin_file(source)
    with plain_errors():
        found = readings(source, path)
        where = places({reading.space for reading in found.readings}, options)
        head, events, done = recorded.convert(found, where, choice(source, options), f"{source} {Path(path).name}")
        trace.write(output, head, events)
    result = {"trace": output, "start": head.start, "seconds": head.seconds, **msgspec.to_builtins(done)}
    report(result, json_, output, conversion_text(done, output))


@simulate.command()
@click.argument("trace_file", metavar="TRACE", type=click.Path(path_type=Path))
@service_url
@keys_file
@click.option("--answers", type=click.Path(path_type=Path), help="Record of the answers.  [default: TRACE.answers]")
@click.option("--speed", type=click.FloatRange(0, min_open=True), help="What the service's clock must run at.")
@click.option(
    "--align",
    type=click.Choice(["clock", "now"]),
    default="clock",
    show_default=True,
    help="t = 0 is the instant that the trace names, by the service's clock, or the service's present.",
)
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(1), help="Connections at once.")
@click.option(
    "--timeout", default=10.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Seconds a try."
)
@click.option("--tries", default=5, show_default=True, type=click.IntRange(1), help="Of a request without an answer.")
@as_json
def replay(
    trace_file: Path,
    url: str | None,
    keys: Path,
    answers: Path | None,
    json_: bool,
    speed: float | None,
    **options: Any,
) -> None:
    """Send a trace's events to the service, each at its own time, and record every answer.

    The service's clock must run as fast as the replay (IPARKING_CLOCK_SPEED); without --speed, it sets the speed.

    \b
    Example: ./iparking simulate replay morning.jsonl --url http://127.0.0.1:8000 --answers morning.answers
    """
    from simulator.replay import Plan, ReplayError
    from simulator.replay import replay as run
    from simulator.report import print_replay
    from simulator.users import KeysError

    record = answers or Path(f"{trace_file}.answers")
    with plain_errors(ReplayError, KeysError):
        plan = Plan(trace_file, url or DEFAULT_URL, keys, record, speed=speed, **options)
        figures = run(plan)
    if json_:
        print_json(figures)
    else:
        print_replay(figures)
    if figures["partial"]:
        raise SystemExit(1)


@simulate.command()
@click.argument("answers", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--url", help="The service.  [default: where the run went]")
@keys_file
@click.option("--database-url", help="Read-only URL of its PostgreSQL, to compare with too.")
@as_json
def audit(answers: tuple[Path, ...], url: str | None, keys: Path, database_url: str | None, json_: bool) -> None:
    """Compare what a run was answered with what it must have been, with the API, and with PostgreSQL.

    Exits with 1 when anything differs. ANSWERS are the records of one run, one of each client.

    \b
    Example: ./iparking simulate audit morning.answers --database-url postgresql://reader@127.0.0.1:5432/demo
    """
    from psycopg import Error as DatabaseError

    from simulator.answers import AnswersError
    from simulator.auditor import audit as compare
    from simulator.users import KeysError

    with plain_errors(AnswersError, KeysError, DatabaseError):
        found = compare(answers, keys, base_url=url, database_url=database_url)
    if json_:
        print_json(found.as_dict())
    else:
        print_audit(found.as_dict())
    if found.verdict.divergences:
        raise SystemExit(1)
