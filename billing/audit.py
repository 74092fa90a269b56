"""Who did what with other people's money, when and why. Rows are only added."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg.types.json import Jsonb


class Act(NamedTuple):
    """What somebody decides: who, when and, in their own words, why."""

    actor: str
    at: datetime
    reason: str


def note(
    connection: psycopg.Connection, act: Act, action: str, subject: str, details: Mapping[str, Any] | None = None
) -> None:
    """Write down an act, in the transaction in which it is done. `details` are plain JSON values."""
    connection.execute(
        "INSERT INTO audit_log (at, actor, action, subject, reason, details) VALUES (%s, %s, %s, %s, %s, %s)",
        (act.at, act.actor, action, subject, act.reason, Jsonb(dict(details or {}))),
    )
