"""Imported versions against those in the database: the new ones are written, in the caller's transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import Connection, insert, text, update

from billing.imports.reader import Record
from billing.imports.report import Problems, Report
from billing.models import RateLine, RatePlan
from billing.plans import lines, stored
from billing.rates import Rate


@dataclass(slots=True)
class Changes:
    """The versions as they would be, and which of them are new, ended by a new one, or as they were."""

    versions: dict[str, Rate]
    stored: frozenset[str]
    created: list[str] = field(default_factory=list)
    closed: set[str] = field(default_factory=set)
    unchanged: int = 0

    def report(self, dry_run: bool) -> Report:
        return Report(len(self.created), len(self.closed), self.unchanged, tuple(self.created), dry_run)


def apply(connection: Connection, records: Sequence[Record], now: datetime, dry_run: bool = False) -> Report:
    """Write the versions that the database does not have yet, and report it; a dry run only reports.

    A new version ends the one in force when it begins. The caller commits. Raises ImportRefused where a version would
    change, or where a stay that may have been priced already would have another price.
    """
    if not dry_run:
        # One import at a time; whoever reads rates is not held up.
        connection.execute(text("LOCK TABLE rate_plan IN SHARE ROW EXCLUSIVE MODE"))
    changes = compare(stored(connection), records, now)
    if not dry_run:
        _write(connection, changes)
    return changes.report(dry_run)


def compare(stored_rates: Iterable[Rate], records: Iterable[Record], now: datetime) -> Changes:
    """What the records change. Raises ImportRefused."""
    versions = {rate.version: rate for rate in stored_rates}
    changes, problems = Changes(versions, frozenset(versions)), Problems()
    for record in sorted(records, key=lambda record: record.rate.valid_from):
        known = changes.versions.get(record.rate.version)
        if known is None:
            _insert(changes, record, now, problems)
        elif replace(known, valid_to=None) == record.rate:
            changes.unchanged += 1
        else:
            detail = "a version never changes: give the new price a version and a valid_from of its own"
            problems.add(record.where, "version_in_use", detail, id=record.rate.version, field="version")
    problems.refuse_if_any()
    return changes


def _insert(changes: Changes, record: Record, now: datetime, problems: Problems) -> None:
    """Put a new version in its place in time: behind the one in force when it begins, before the next one."""
    rate = record.rate
    others = [other for other in changes.versions.values() if other.family == rate.family and not other.withdrawn]
    current = next((other for other in others if other.valid_from <= rate.valid_from < other.ends), None)
    later = min((other.valid_from for other in others if other.valid_from > rate.valid_from), default=None)
    if current is not None and current.version in changes.stored:
        if rate.valid_from < now:
            detail = f"{current.version} was in force by then, and stays may have been priced by it"
            problems.add(record.where, "changes_the_past", detail, id=rate.version, field="valid_from")
            return
        changes.closed.add(current.version)
    if current is not None:
        changes.versions[current.version] = replace(current, valid_to=rate.valid_from)
    changes.versions[rate.version] = replace(rate, valid_to=later)
    changes.created.append(rate.version)


def _write(connection: Connection, changes: Changes) -> None:
    for version in sorted(changes.closed):
        ended = update(RatePlan).where(RatePlan.version == version)
        connection.execute(ended.values(valid_to=changes.versions[version].valid_to))
    created = [changes.versions[version] for version in changes.created]
    if created:
        names = [column.name for column in RatePlan.__table__.columns]
        connection.execute(insert(RatePlan), [{name: getattr(rate, name) for name in names} for rate in created])
        connection.execute(
            insert(RateLine),
            [
                {"version": rate.version, "part": part, **step._asdict()}
                for rate in created
                for part, step in lines(rate)
            ],
        )
