-- What was booked on another day, looked up by its name: what the list dates to the day, what a gateway told us of and dated to
-- the day, what was reversed since, and what was reversed on the day. Transactions first, then their entries: a clearing account
-- has more entries than any other, and they are never walked.
-- In: theirs, booked; gateway, clearing; since, until; least_id, bound_id. Out: more rows of booked.
INSERT INTO booked
WITH missing AS MATERIALIZED (
    SELECT t.booking, t.name FROM theirs t
     WHERE t.is_today AND t.booking NOT IN ('fee', 'payout')
       AND NOT EXISTS (SELECT FROM booked b WHERE b.booking = t.booking AND b.name = t.name)
    UNION
    SELECT 'transfer', c.gateway || '/' || c.transaction_id FROM credit c
     WHERE c.gateway = %(gateway)s AND c.at >= %(since)s AND c.at < %(until)s AND c.client IS NOT NULL
       AND NOT EXISTS (SELECT FROM booked b WHERE b.booking = 'transfer' AND b.name = c.gateway || '/' || c.transaction_id)
), far AS MATERIALIZED (
    SELECT m.booking, m.name, t.id, t.at FROM missing m JOIN ledger_transaction t ON t.kind = m.booking AND t.reference = m.name
    UNION ALL
    SELECT b.booking, b.name, l.id, l.at
      FROM booked b JOIN ledger_transaction l ON l.reverses = b.id AND l.reverses IS NOT NULL AND l.id >= %(bound_id)s
     WHERE b.is_today AND NOT EXISTS (SELECT FROM theirs t WHERE t.booking = b.booking AND t.name = b.name AND t.amount = b.amount)
    UNION ALL
    SELECT b.booking, b.name, l.id, l.at FROM booked b JOIN ledger_transaction l ON l.id = b.id
     WHERE b.is_today AND b.id < %(least_id)s
)
SELECT f.booking, f.name, f.id, e.amount, f.at, false
  FROM far f
  JOIN ledger_entry e ON e.transaction_id = f.id
   AND e.account_id = (SELECT a.id FROM ledger_account a WHERE a.code = %(clearing)s)
