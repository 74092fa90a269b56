"""Rows to rates; all that is wrong is collected, and refused together."""

import re
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime, time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import available_timezones

from billing.imports.report import Problems, shown
from billing.imports.rows import Row, rows
from billing.money import parse_price
from billing.plans import parts
from billing.rates import REFUNDS, SOURCES, UNITS, Rate, Step

VEHICLE_CLASSES = ("car", "motorbike")
PARTS = ("day", "night", "full_day")
# A code stands in addresses and answers.
CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
YEARS = range(1900, 3000)
LONGEST_MINUTES = 44_640  # a month of 31 days
LAST_UNIT = 10_000


class Record(NamedTuple):
    """One version as the file has it; `where` names its first line. Its rate has no end: only a later one ends it."""

    where: str
    rate: Rate


class BadCell(Exception):
    """A cell that cannot be taken; `rule` names what it breaks."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule


def read(path: Path) -> list[Record]:
    """The checked versions of a CSV file, in the order of the file. Raises ImportRefused with every bad record."""
    problems = Problems()
    found = rows(path, set(CELLS) - set(DEFAULTS), DEFAULTS, problems)
    if any(record.where == "file" or record.rule.endswith("_column") for record in problems.records):
        problems.refuse_if_any()
    by_version: dict[str | None, list[tuple[str, dict[str, Any] | None]]] = {}
    for row in found:
        by_version.setdefault(row.cells.get("version"), []).append((row.where, _values(row, problems)))
    records = [record for of_version in by_version.values() for record in _records(of_version, problems)]
    _check_beginnings(records, problems)
    problems.refuse_if_any()
    return records


def _values(row: Row, problems: Problems) -> dict[str, Any] | None:
    """The values of a row by column; None if one of them is bad."""
    values = dict(DEFAULTS)
    good = True
    for name, parse in CELLS.items():
        cell = row.cells.get(name)
        try:
            if cell is not None:
                values[name] = parse(cell)
            elif name not in DEFAULTS:
                raise BadCell("missing_field", "is needed")
        except BadCell as error:
            good = False
            problems.add(row.where, error.rule, str(error), id=row.cells.get("version"), field=name)
    return values if good else None


def _records(of_version: list[tuple[str, dict[str, Any] | None]], problems: Problems) -> Iterator[Record]:
    """The rate that the rows of one version make, if all of them are good, they agree, and it is whole."""
    good = [(line, values) for line, values in of_version if values is not None]
    if len(good) < len(of_version):
        return
    where, first = good[0]
    before = len(problems.records)
    lines: dict[tuple[str, int], Step] = {}
    for line, values in good:
        for name in sorted(SETTINGS):
            if values[name] != first[name]:
                detail = f"not as in {where}, which begins this version"
                problems.add(line, "settings_differ", detail, id=first["version"], field=name)
        step = Step(values["from_unit"], values["price"], values["source"])
        if lines.setdefault((values["part"], step.from_unit), step) is not step:
            detail = f"a second price of {values['part']} from unit {step.from_unit}"
            problems.add(line, "duplicate_price", detail, id=first["version"], field="from_unit")
    settings = {name: first[name] for name in SETTINGS}
    rate = Rate(**settings, valid_to=None, **parts((part, step) for (part, _), step in lines.items()))
    for field, rule, detail in _faults(rate, set(lines)):
        problems.add(where, rule, detail, id=rate.version, field=field)
    if len(problems.records) == before:
        yield Record(where, rate)


def _faults(rate: Rate, lines: Collection[tuple[str, int]]) -> Iterator[tuple[str, str, str]]:
    """What keeps a rate from pricing a stay: field, rule, detail."""
    windowed = rate.night_start is not None
    needed = {"hour": {"day"}, "turn": {"day", "night"} if windowed else {"day"}, "month": {"full_day"}}[rate.unit]
    possible = {"hour": {"day", "night"}, "turn": set(PARTS), "month": {"day", "full_day"}}[rate.unit]
    for part in sorted(needed - {part for part, from_unit in lines if from_unit == 1}):
        yield "part", "missing_price", f"a rate by the {rate.unit} needs a price of {part} from unit 1"
    for part in sorted({part for part, _ in lines} - (possible if windowed else possible - {"night"})):
        yield "part", "price_without_use", f"a rate by the {rate.unit} with these settings has no {part} price"
    if any(from_unit > 1 and (part != "day" or rate.unit != "hour") for part, from_unit in lines):
        yield "from_unit", "steps_without_use", "only the hours of a day have steps"
    if (rate.day_start is None) != (rate.night_start is None) or (windowed and rate.day_start == rate.night_start):
        yield "night_start", "bad_windows", "day_start and night_start: both and different, or neither"
    if rate.night_cap is not None and (rate.unit != "hour" or not windowed):
        yield "night_cap", "cap_without_use", "only a rate by the hour with a night has a night cap"
    if rate.daily_cap is not None and rate.unit != "hour":
        yield "daily_cap", "cap_without_use", "only a rate by the hour has a daily cap"


def _check_beginnings(records: list[Record], problems: Problems) -> None:
    """Of one area, class and kind of price, no two versions may begin at one instant."""
    first: dict[tuple[Any, ...], Record] = {}
    for record in records:
        other = first.setdefault((*record.rate.family, record.rate.valid_from), record)
        if other is not record:
            detail = f"{other.rate.version} ({other.where}) begins at the same instant"
            problems.add(record.where, "duplicate_beginning", detail, id=record.rate.version, field="valid_from")


def _code(cell: str) -> str:
    if not CODE.fullmatch(cell):
        raise BadCell("invalid_code", "1 to 64 letters A to Z, digits, dots, underlines and hyphens")
    return cell


def _choice(allowed: Collection[str], rule: str, cell: str) -> str:
    if cell not in allowed:
        raise BadCell(rule, f"{shown(cell)} is not one of {', '.join(allowed)}")
    return cell


def _instant(cell: str) -> datetime:
    try:
        instant = datetime.fromisoformat(cell)
    except ValueError:
        raise BadCell("not_an_instant", f"{shown(cell)} is not an instant as 2018-01-01T00:00+07:00") from None
    if instant.tzinfo is None:
        raise BadCell("missing_offset", f"{shown(cell)} does not say its offset from UTC")
    if instant.year not in YEARS:
        raise BadCell("out_of_range", f"the year is not within {YEARS[0]} and {YEARS[-1]}")
    return instant.astimezone(UTC)


def _timezone(cell: str) -> str:
    if cell not in available_timezones():
        raise BadCell("unknown_timezone", f"{shown(cell)} is not in the IANA time zone database")
    return cell


def _clock(cell: str) -> time:
    if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", cell):
        raise BadCell("not_a_time", f"{shown(cell)} is not a time as 06:00")
    return time.fromisoformat(cell)


def _integer(least: int, most: int, cell: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,10}", cell):
        raise BadCell("not_an_integer", f"{shown(cell)} is not a whole number")
    if not least <= int(cell) <= most:
        raise BadCell("negative" if int(cell) < 0 else "out_of_range", f"{cell} is not within {least} and {most}")
    return int(cell)


def _price(cell: str) -> int:
    try:
        return parse_price(cell)
    except ValueError as error:
        raise BadCell("negative" if cell.startswith("-") else "not_a_price", f"{shown(cell)} is {error}") from None


CELLS: dict[str, Callable[[str], Any]] = {
    "version": _code,
    "rate_area": _code,
    "vehicle_class": partial(_choice, VEHICLE_CLASSES, "unknown_class"),
    "unit": partial(_choice, UNITS, "unknown_unit"),
    "valid_from": _instant,
    "timezone": _timezone,
    "day_start": _clock,
    "night_start": _clock,
    "night_cap": _price,
    "daily_cap": _price,
    "free_minutes": partial(_integer, 0, LONGEST_MINUTES),
    "max_stay_minutes": partial(_integer, 1, LONGEST_MINUTES),
    "refund": partial(_choice, REFUNDS, "unknown_refund"),
    "part": partial(_choice, PARTS, "unknown_part"),
    "from_unit": partial(_integer, 1, LAST_UNIT),
    "price": _price,
    "source": partial(_choice, SOURCES, "unknown_source"),
}
DEFAULTS: dict[str, Any] = {
    "day_start": None,
    "night_start": None,
    "night_cap": None,
    "daily_cap": None,
    "free_minutes": 0,
    "max_stay_minutes": None,
    "refund": "unused",
    "from_unit": 1,
}
SETTINGS = frozenset(CELLS) - {"part", "from_unit", "price", "source"}
