"""The city's share of what is earned: booked once for each district and day of Hanoi, after the night.

It is no part of what a district's revenue is (reports, receipts and the ledger say the same of that): it costs us, and
is owed to the city: debit city_share_cost/<district>, credit city_share, as kind `city_share` and `<district>/<day>`.

A day counts what moved on its account of revenue: what was charged, less what was given back on it, at the rate of that
day (city_share_rate). So what is refunded later takes its share back on its own day, which may be below zero. Rounding
is carried on: what a district's days come to, each at its rate, is rounded half up once, and a day books what that has
grown by. So all days together are never off by more than half a đồng, and revenue that is given back as a whole leaves
no share behind.
"""

from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import psycopg

from billing import ledger
from billing.ledger import Posting

HANOI = ZoneInfo("Asia/Ho_Chi_Minh")
KIND = "city_share"
# What was charged before midnight is committed long before.
NIGHT = time(3)

# The day behind the last that is done; at first, the one on which something was earned first.
_NEXT = """
SELECT COALESCE(
    (SELECT max(day) + 1 FROM city_share_day),
    (SELECT min((t.at AT TIME ZONE 'Asia/Ho_Chi_Minh')::date)
       FROM ledger_account a
      CROSS JOIN LATERAL (SELECT e.transaction_id FROM ledger_entry e
                           WHERE e.account_id = a.id ORDER BY e.transaction_id LIMIT 1) e
       JOIN ledger_transaction t ON t.id = e.transaction_id
      WHERE a.code LIKE 'revenue/%/iparking'))"""
# Whoever comes second waits for the first, and then adds nothing.
_WORK_OUT = """
INSERT INTO city_share_day (district, day, revenue, basis_points, share)
SELECT d.district, %(day)s, d.revenue, r.basis_points,
       city_share_of(b.parts + d.revenue::numeric * r.basis_points) - city_share_of(b.parts)
  FROM (SELECT n.district, net_revenue(n.district, %(day)s) AS revenue
          FROM ledger_account a CROSS JOIN LATERAL (SELECT split_part(a.code, '/', 2)) n(district)
         WHERE a.code LIKE 'revenue/%%/iparking') d
 CROSS JOIN (SELECT COALESCE((SELECT basis_points FROM city_share_rate
                               WHERE valid_from <= %(day)s ORDER BY valid_from DESC LIMIT 1), 0)) r(basis_points)
 CROSS JOIN LATERAL (SELECT COALESCE(sum(c.revenue::numeric * c.basis_points), 0) FROM city_share_day c
                      WHERE c.district = d.district) b(parts)
 ORDER BY d.district
ON CONFLICT DO NOTHING RETURNING district, share"""


def book(connection: psycopg.Connection, now: datetime) -> int:
    """Book what is the city's of every day that ended before the last night; the number of days.

    Days are done in their order, each in a transaction of its own; done before, by anybody, they are left alone.
    """
    ended, done = _last_ended(now), 0
    while (day := _next(connection)) is not None and day <= ended:
        _book_day(connection, day, now)
        done += 1
    return done


def _last_ended(now: datetime) -> date:
    local = now.astimezone(HANOI)
    return local.date() - timedelta(days=1 if local.time() >= NIGHT else 2)


def _next(connection: psycopg.Connection) -> date | None:
    row = connection.execute(_NEXT).fetchone()
    return row[0] if row else None


def _book_day(connection: psycopg.Connection, day: date, now: datetime) -> None:
    with connection.transaction():
        shares = connection.execute(_WORK_OUT, {"day": day}).fetchall()
        ledger.post(
            connection,
            [
                Posting(KIND, f"{district}/{day}", now, {f"city_share_cost/{district}": share, "city_share": -share})
                for district, share in shares
                if share
            ],
        )
