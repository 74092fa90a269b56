"""What the commands of `simulate` share: kinds of values, options, and how input becomes what the functions take."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from simulator.arrivals import HANOI
from simulator.city import City, CityError
from simulator.convert import Choice, Place, spread
from simulator.readings import Readings, read, read_cds, read_csv
from simulator.trace import InputError, TrafficError, open_input

PROJECT = Path(__file__).resolve().parent.parent
BERLIN = Path("data/replay/berlin_parking_events_2018.csv")
BERLIN_TIME = ZoneInfo("Europe/Berlin")
DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_KEYS = Path(".iparking/keys.json")
USUAL: tuple[type[Exception], ...] = (InputError, TrafficError, CityError, OSError)


class Refused(click.ClickException):
    """The input or the arguments cannot be used; ends with one line and exit code 2."""

    exit_code = 2


class LocalDay(click.ParamType):
    """A date as YYYY-MM-DD."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        try:
            return value if isinstance(value, date) else date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a date (YYYY-MM-DD)", param, ctx)


class TimeOfDay(click.ParamType):
    """A time of day as HH:MM."""

    name = "HH:MM"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> time:
        try:
            read = value if isinstance(value, time) else time.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a time of day (HH:MM)", param, ctx)
        if read.tzinfo is not None:
            self.fail("a time of day has no offset", param, ctx)
        return read


class Zone(click.ParamType):
    """A time zone by its IANA name."""

    name = "time zone"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ZoneInfo:
        try:
            return value if isinstance(value, ZoneInfo) else ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            self.fail(f"{value!r} is no time zone (such as Europe/Berlin)", param, ctx)


as_json = click.option("--json", "json_", is_flag=True, help="Print JSON, and nothing else, on standard output.")
output = click.option(
    "-o", "--output", default="trace.jsonl", show_default=True, help="The trace; .gz compresses, - is standard output."
)
service_url = click.option("--url", help=f"The service.  [default: {DEFAULT_URL}]")
city_file = click.option(
    "--city", "city_file", type=click.Path(path_type=Path), help="GeoJSON of zones, instead of a service."
)
keys_file = click.option(
    "--keys", type=click.Path(path_type=Path), default=DEFAULT_KEYS, show_default=True, help="Bearer keys by role."
)


@contextmanager
def plain_errors(*others: type[Exception]) -> Iterator[None]:
    """Faults of the input (and `others`) end in one line and exit code 2; anything else keeps its traceback."""
    try:
        yield
    except (*USUAL, *others) as error:
        raise Refused(str(error)) from error


def exclusive(*options: tuple[str, object]) -> None:
    """Refuse more than one of these (name, value); None is not given."""
    given = [name for name, value in options if value is not None]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude each other")


def check_output(output: str, json_: bool) -> None:
    if output == "-" and json_:
        raise click.UsageError("--json and -o - would mix two things on standard output")


def print_json(result: Mapping[str, Any]) -> None:
    click.echo(json.dumps(result, ensure_ascii=False, indent=2))


def report(result: Mapping[str, Any], json_: bool, output: str, text: str) -> None:
    """The result as JSON or in words; words go to standard error where the trace itself is on standard output."""
    if json_:
        print_json(result)
    else:
        click.echo(text, err=output == "-")


def window(day: date, days: int, opens: time, closes: time) -> tuple[datetime, float]:
    """Start and length in seconds of a window from `opens` on `day` to `closes` on the last of `days` days.

    A window that closes no later than it opens ends on the day after.
    """
    begin = datetime.combine(day, opens, HANOI)
    end = datetime.combine(day + timedelta(days=days - 1), closes, HANOI)
    end += timedelta(days=1) if closes <= opens else timedelta()
    return begin, (end - begin).total_seconds()


def city_from(url: str | None, file: Path | None) -> City | None:
    """The city that the options name, if they name one."""
    if file is not None:
        return City.from_geojson(file)
    return City.from_api(url) if url is not None else None


def berlin_file(source: str) -> str:
    """The shared Berlin record, where FILE was left out. Raises UsageError where there is none to take."""
    path = Path(os.environ.get("IPARKING_SHARED", PROJECT.parent / "shared")) / BERLIN
    if source != "berlin" or not path.is_file():
        raise click.UsageError(f"FILE is missing ({path} is not there)" if source == "berlin" else "FILE is missing")
    return str(path)


def readings(source: str, path: str) -> Readings:
    """The readings of a file in the form that `source` names. Raises InputError."""
    if source == "berlin":
        return read(path)
    with open_input(path) as file:
        return read_cds(file.read(), path) if source == "cds" else read_csv(file, path)


def choice(source: str, options: Mapping[str, Any]) -> Choice:
    """What the options of `convert` choose from a record."""
    local = options["time_zone"] or (BERLIN_TIME if source == "berlin" else HANOI)
    return Choice(
        day=options["day"],
        days=options["days"],
        opens=options["opens"],
        closes=options["closes"],
        on=options["on"],
        local=local,
        flicker_minutes=options["flicker"],
        outage_hours=options["outage"],
        vehicle_class=options["vehicle_class"],
        seed=options["seed"],
    )


def places(spaces: Iterable[str], options: Mapping[str, Any]) -> dict[str, Place]:
    """Each space's zone, by --map or spread over --zones. Raises UsageError, InputError or CityError."""
    exclusive(("--zones", options["zones"]), ("--map", options["map_file"]))
    exclusive(("--url", options["url"]), ("--city", options["city_file"]))
    city = city_from(options["url"], options["city_file"])
    if options["map_file"] is not None:
        mapped = read_map(options["map_file"])
        return {space: _place(code, city, options) for space, code in mapped.items()}
    codes = [code.strip() for code in (options["zones"] or "").split(",") if code.strip()]
    if not codes:
        raise click.UsageError("--zones CODE,CODE,... or --map FILE is needed")
    return spread(spaces, [_place(code, city, options) for code in dict.fromkeys(codes)])


def _place(code: str, city: City | None, options: Mapping[str, Any]) -> Place:
    if city is None:
        return Place(code, options["max_stay"])
    zone = city.by_code.get(code)
    if zone is None:
        raise CityError(f"the city has no zone {code}")
    if not zone.serves(options["vehicle_class"]):
        raise CityError(f"zone {code} has no places for a {options['vehicle_class']}")
    return Place(code, zone.max_stay_minutes, zone.strict)


def read_map(path: Path) -> dict[str, str]:
    """Zone codes by space, from a CSV of space_id,zone. Raises InputError with line, field and rule."""
    with open_input(path) as file:
        try:
            rows = csv.DictReader(file.read().decode("utf-8-sig").splitlines())
        except UnicodeDecodeError:
            raise InputError(str(path), None, None, "not UTF-8") from None
    found: dict[str, str] = {}
    for row in rows:
        for name in ("space_id", "zone"):
            if not row.get(name):
                raise InputError(str(path), rows.line_num, name, "the value is missing")
        if row["space_id"] in found:
            raise InputError(str(path), rows.line_num, "space_id", f"{row['space_id']} is there twice")
        found[row["space_id"]] = row["zone"]
    return found
