-- Payments whose own row says another amount than what was booked for them: none, or we made a mistake.
-- In: since, until; methods. Out: more rows of found.
INSERT INTO found
SELECT 'payment_row', p.reference, p.paid, b.amount, p.paid - b.amount, p.settled_at, p.gateway_reference, p.id, NULL,
       'payment_row', false, true
  FROM payment p CROSS JOIN LATERAL (
       SELECT COALESCE(CASE WHEN p.method IN ('card', 'cash') THEN (
                  SELECT sum(e.amount) FROM ledger_transaction t JOIN ledger_entry e ON e.transaction_id = t.id AND e.amount > 0
                   WHERE t.kind = CASE p.method WHEN 'card' THEN 'payment' ELSE 'cash' END AND t.reference = p.reference)
              ELSE (SELECT sum(c.amount) FROM credit c WHERE c.payment_id = p.id) END, 0)::bigint AS amount) b
 WHERE p.state = 'paid' AND p.settled_at >= %(since)s AND p.settled_at < %(until)s AND p.method = ANY (%(methods)s)
   AND p.paid <> b.amount
