-- What was booked long before or behind the day, looked up by its name; and what was reversed since.
-- In: theirs, booked; clearing; least_id, bound_id. Out: more rows of booked.
INSERT INTO booked
SELECT t.booking, t.name, l.id, e.amount, l.at, false
  FROM theirs t
  JOIN ledger_transaction l ON l.kind = t.booking AND l.reference = t.name
  JOIN ledger_entry e ON e.transaction_id = l.id JOIN ledger_account a ON a.id = e.account_id AND a.code = %(clearing)s
 WHERE t.is_today AND t.booking NOT IN ('fee', 'payout')
   AND NOT EXISTS (SELECT FROM booked b WHERE b.booking = t.booking AND b.name = t.name)
UNION ALL
SELECT b.booking, b.name, b.id, e.amount, l.at, false
  FROM booked b
  JOIN ledger_transaction l ON l.reverses = b.id AND l.id >= %(bound_id)s
  JOIN ledger_entry e ON e.transaction_id = l.id JOIN ledger_account a ON a.id = e.account_id AND a.code = %(clearing)s
 WHERE b.is_today AND NOT EXISTS (SELECT FROM theirs t WHERE t.booking = b.booking AND t.name = b.name AND t.amount = b.amount)
UNION ALL
SELECT b.booking, b.name, b.id, e.amount, l.at, false
  FROM booked b
  JOIN ledger_transaction l ON l.id = b.id
  JOIN ledger_entry e ON e.transaction_id = l.id JOIN ledger_account a ON a.id = e.account_id AND a.code = %(clearing)s
 WHERE b.is_today AND b.id < %(least_id)s
