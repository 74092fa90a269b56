"""What a stay costs, worked out slowly and in another way than `billing.rates` does it.

It goes hour by hour on the wall clock, and tries every set of turns. Hypothesis compares the two.
"""

from datetime import UTC, date, datetime, time, timedelta
from itertools import combinations, pairwise
from zoneinfo import ZoneInfo

from billing.rates import Rate

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def fee(rate: Rate, start: datetime, end: datetime) -> int:
    """The total in VND."""
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    free_until = start + timedelta(minutes=rate.free_minutes)
    if rate.free_minutes and end <= free_until:
        return 0
    return {"hour": _by_hour, "turn": _by_turn, "month": _by_month}[rate.unit](rate, free_until, end)


def _wall(rate: Rate, instant: datetime) -> datetime:
    return instant.astimezone(ZoneInfo(rate.timezone)).replace(tzinfo=None)


def _part(rate: Rate, instant: datetime) -> tuple[str, date]:
    """Day or night, and the date on which that part began."""
    wall = _wall(rate, instant)
    if rate.day_start is None or rate.night_start is None:
        return "day", date.min
    now = wall.time()
    first, last = sorted([("day", rate.day_start), ("night", rate.night_start)], key=lambda pair: pair[1])
    if now < first[1]:
        return last[0], wall.date() - DAY
    return (last if now >= last[1] else first)[0], wall.date()


def _by_hour(rate: Rate, start: datetime, end: datetime) -> int:
    hours = [start]
    while hours[-1] + HOUR < end:
        hours.append(hours[-1] + HOUR)
    total = 0
    nights: dict[date, int] = {}
    days: dict[date, int] = {}
    for number, instant in enumerate(hours, 1):
        kind, began = _part(rate, instant)
        if kind == "night":
            charge = rate.night.price if rate.night else rate.day[0].price
            if rate.night_cap is not None:
                charge = min(charge, rate.night_cap - nights.get(began, 0))
        else:
            charge = max(step for step in rate.day if step.from_unit <= number).price
        today = _wall(rate, instant).date()
        if rate.daily_cap is not None:
            charge = min(charge, rate.daily_cap - days.get(today, 0))
        if kind == "night":
            nights[began] = nights.get(began, 0) + charge
        days[today] = days.get(today, 0) + charge
        total += charge
    return total


def _by_turn(rate: Rate, start: datetime, end: datetime) -> int:
    """The cheapest set of full days; what they leave open is paid by turns."""
    blocks = [start]
    while blocks[-1] + DAY < end:
        blocks.append(blocks[-1] + DAY)
    choices = [()] if rate.full_day is None else [c for n in range(len(blocks) + 1) for c in combinations(blocks, n)]
    full_day = rate.full_day.price if rate.full_day else 0
    pieces = _pieces(rate, start, end)
    costs = []
    for chosen in choices:
        open_parts = {
            part
            for begin, finish, part in pieces
            if not any(block <= begin and finish <= block + DAY for block in chosen)
        }
        costs.append(len(chosen) * full_day + sum(_turn(rate, kind) for kind, _ in open_parts))
    return min(costs)


def _turn(rate: Rate, kind: str) -> int:
    return rate.night.price if kind == "night" and rate.night else rate.day[0].price


def _pieces(rate: Rate, start: datetime, end: datetime) -> list[tuple[datetime, datetime, tuple[str, date]]]:
    """The stay, cut where local clocks change between day and night and at each full 24 hours."""
    marks = {start, end}
    marks.update(mark for n in range(1, 100) if (mark := start + n * DAY) < end)
    day = _wall(rate, start).date() - DAY
    while datetime.combine(day, time(), UTC) < end + 2 * DAY:
        for clock in (rate.day_start, rate.night_start):
            if clock is not None:
                mark = datetime.combine(day, clock, ZoneInfo(rate.timezone)).astimezone(UTC)
                marks.update([mark] if start < mark < end else [])
        day += DAY
    ordered = sorted(marks)
    pairs = list(pairwise(ordered)) or [(start, start)]
    return [(begin, finish, _part(rate, begin)) for begin, finish in pairs]


def _by_month(rate: Rate, start: datetime, end: datetime) -> int:
    last = max(start, end - timedelta(microseconds=1))
    begin, finish = _wall(rate, start), _wall(rate, last)
    months = (finish.year - begin.year) * 12 + finish.month - begin.month + 1
    assert rate.full_day is not None
    return months * rate.full_day.price
