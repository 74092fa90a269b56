-- What is booked on the gateway's clearing account on the day. A reversal takes from what it reverses. Ids are of their
-- instants, so a day's entries of an account lie together.
-- In: clearing; only (a kind; none: all but fees and payouts); since, until; least_id, bound_id. Out: booked, a row each entry.
CREATE TEMPORARY TABLE booked ON COMMIT DROP AS
SELECT COALESCE(r.kind, t.kind) AS booking, COALESCE(r.reference, t.reference) AS name, COALESCE(r.id, t.id) AS id, e.amount, t.at,
       t.at >= %(since)s AND t.at < %(until)s AS is_today
  FROM ledger_account a
  JOIN ledger_entry e ON e.account_id = a.id AND e.transaction_id >= %(least_id)s AND e.transaction_id < %(bound_id)s
  JOIN ledger_transaction t ON t.id = e.transaction_id AND t.id >= %(least_id)s AND t.id < %(bound_id)s
  LEFT JOIN ledger_transaction r ON r.id = t.reverses
 WHERE a.code = %(clearing)s AND t.kind NOT IN ('fee', 'payout')
   AND (%(only)s::text IS NULL OR COALESCE(r.kind, t.kind) = %(only)s::text)
