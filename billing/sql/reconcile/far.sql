-- What was booked on another day, looked up by its name: what the list dates to the day, what a gateway told us of and dated to
-- the day, what was reversed since, and what was reversed on the day.
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
)
SELECT m.booking, m.name, l.id, l.amount, l.at, false
  FROM missing m CROSS JOIN LATERAL (
       SELECT t.id, e.amount, t.at
         FROM ledger_transaction t JOIN ledger_entry e ON e.transaction_id = t.id
         JOIN ledger_account a ON a.id = e.account_id AND a.code = %(clearing)s
        WHERE t.kind = m.booking AND t.reference = m.name LIMIT 1) l
UNION ALL
SELECT b.booking, b.name, b.id, e.amount, l.at, false
  FROM booked b
  JOIN ledger_transaction l ON l.reverses = b.id AND l.reverses IS NOT NULL AND l.id >= %(bound_id)s
  JOIN ledger_entry e ON e.transaction_id = l.id JOIN ledger_account a ON a.id = e.account_id AND a.code = %(clearing)s
 WHERE b.is_today AND NOT EXISTS (SELECT FROM theirs t WHERE t.booking = b.booking AND t.name = b.name AND t.amount = b.amount)
UNION ALL
SELECT b.booking, b.name, b.id, e.amount, l.at, false
  FROM booked b
  JOIN ledger_transaction l ON l.id = b.id
  JOIN ledger_entry e ON e.transaction_id = l.id JOIN ledger_account a ON a.id = e.account_id AND a.code = %(clearing)s
 WHERE b.is_today AND b.id < %(least_id)s
