"""The parameters of the demand model: demand.toml, checked and frozen. What each means stands in that file."""

import hashlib
import math
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from simulator.trace import InputError, explain

DEFAULT_FILE = Path(__file__).with_name("demand.toml")
P90 = 1.2815515655446004  # the standard normal's 90th percentile
SUM_TOLERANCE = 1e-6

DayType = Literal["weekday", "weekend", "holiday"]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e6)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
Hours = Annotated[tuple[Amount, ...], msgspec.Meta(min_length=24, max_length=24)]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file: nothing missing, nothing unknown."""


class StaysPerPlace(_Table, frozen=True):
    car: Amount
    motorbike: Amount


class PrepaidShare(_Table, frozen=True):
    car: Share
    motorbike: Share


class Stock(_Table, frozen=True):
    hours: Amount
    minutes: Positive
    share: Share


class Pressure(_Table, frozen=True):
    spread: Share
    small_strict_places: Annotated[int, msgspec.Meta(ge=0)]
    small_strict_factor: Amount


class DistrictUse(_Table, frozen=True):
    pressure: Amount
    mix: dict[str, Share]


class ByDay(_Table, frozen=True):
    weekday: Amount
    weekend: Amount
    holiday: Amount


class Profile(_Table, frozen=True):
    weekday: Hours
    weekend: Hours
    holiday: Hours


class LandUse(_Table, frozen=True):
    """Dwell times (minutes) and arrivals of one land use."""

    dwell_median: Positive
    dwell_p90: Positive
    volume: ByDay
    profile: Profile

    @property
    def mu(self) -> float:
        """Mean of the logarithm of the dwell time in seconds."""
        return math.log(self.dwell_median * 60)

    @property
    def sigma(self) -> float:
        """Standard deviation of the logarithm of the dwell time."""
        return math.log(self.dwell_p90 / self.dwell_median) / P90


class Holidays(_Table, frozen=True):
    every_year: frozenset[Annotated[str, msgspec.Meta(pattern=r"^\d\d-\d\d$")]]
    dates: frozenset[date]


class Stay(_Table, frozen=True):
    shortest_minutes: Positive
    margin_minutes: Positive
    block_minutes: Annotated[int, msgspec.Meta(ge=1, le=1440)]
    prepaid: PrepaidShare
    never_stopped: Share


class Prepaid(_Table, frozen=True):
    extends: Share
    early_stop: Share
    late_stop: Share
    first_part: Share
    extended_stop: Share
    lead_minutes: Positive
    late_minutes: tuple[Positive, Positive]


class Again(_Table, frozen=True):
    share: Share
    pause_minutes: Positive
    pool: Annotated[int, msgspec.Meta(ge=0)]


class Checks(_Table, frozen=True):
    per_stay: Amount
    wrong_zone: Share
    mistyped: Share
    unpaid: Share
    after_end: Share
    after_minutes: Positive


class Parameters(_Table, frozen=True):
    """All of demand.toml."""

    stays_per_place: StaysPerPlace
    stock: Stock
    pressure: Pressure
    districts: dict[str, DistrictUse]
    land_uses: dict[str, LandUse]
    holidays: Holidays
    stay: Stay
    prepaid: Prepaid
    again: Again
    checks: Checks

    def district(self, code: str) -> DistrictUse:
        return self.districts.get(code, self.districts["default"])

    def day_type(self, day: date) -> DayType:
        """Whether a local day is a holiday, a weekend or an ordinary weekday."""
        if day in self.holidays.dates or f"{day:%m-%d}" in self.holidays.every_year:
            return "holiday"
        return "weekend" if day.weekday() >= 5 else "weekday"

    def digest(self) -> str:
        """A short hash of all values; equal for equal parameters."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:16]


def load(path: str | Path = DEFAULT_FILE) -> Parameters:
    """Read and check a parameter file. Raises InputError, which names the field and the rule."""
    try:
        read = msgspec.toml.decode(Path(path).read_bytes(), type=Parameters)
    except OSError as error:
        raise InputError(str(path), None, None, error.strerror or str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        field, rule = explain(error) if isinstance(error, msgspec.ValidationError) else (None, str(error))
        raise InputError(str(path), None, field, rule) from None
    for field, rule in _faults(read):
        raise InputError(str(path), None, field, rule)
    return read


def _faults(read: Parameters) -> list[tuple[str, str]]:
    """(field, rule) of each rule over more than one value that is broken."""
    faults = [] if "default" in read.districts else [("districts", "a district named default is needed")]
    for code, district in read.districts.items():
        faults += _mix_faults(code, district, read.land_uses)
    for name, use in read.land_uses.items():
        faults += _land_use_faults(name, use)
    if read.prepaid.extends + read.prepaid.early_stop + read.prepaid.late_stop > 1 + SUM_TOLERANCE:
        faults.append(("prepaid", "extends, early_stop and late_stop are together at most 1"))
    if not read.prepaid.lead_minutes < read.stay.block_minutes:
        faults.append(("prepaid.lead_minutes", "must be below stay.block_minutes"))
    if not read.checks.after_minutes <= read.again.pause_minutes:
        faults.append(("again.pause_minutes", "must be at least checks.after_minutes"))
    if not read.prepaid.late_minutes[0] <= read.prepaid.late_minutes[1]:
        faults.append(("prepaid.late_minutes", "the first is at most the second"))
    return faults


def _mix_faults(code: str, district: DistrictUse, uses: dict[str, LandUse]) -> list[tuple[str, str]]:
    faults = [(f"districts.{code}.mix", f"{name} is no land use") for name in district.mix if name not in uses]
    if abs(sum(district.mix.values()) - 1) > SUM_TOLERANCE:
        faults.append((f"districts.{code}.mix", "the parts add up to 1"))
    return faults


def _land_use_faults(name: str, use: LandUse) -> list[tuple[str, str]]:
    faults = [] if use.dwell_p90 > use.dwell_median else [(f"land_uses.{name}.dwell_p90", "must be above dwell_median")]
    for day in ("weekday", "weekend", "holiday"):
        if sum(getattr(use.profile, day)) <= 0:
            faults.append((f"land_uses.{name}.profile.{day}", "at least one hour is above 0"))
    return faults
