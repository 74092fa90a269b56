-- What is open and by now explained, on this day and on others: a name that two days have with opposite amounts is one movement
-- that each of them dates in its own way; and a shift that was left open is closed by now.
-- In: day, gateway. Out: settled.
CREATE TEMPORARY TABLE settled ON COMMIT DROP AS
SELECT p.day, c.booking, c.reference
  FROM reconciliation_difference c
  JOIN reconciliation_difference d USING (gateway, booking, reference)
 CROSS JOIN LATERAL (VALUES (c.day, c.state), (d.day, d.state)) p(day, state)
 WHERE c.day = %(day)s AND c.gateway = %(gateway)s AND d.day <> c.day AND d.amount = -c.amount AND c.amount <> 0
   AND (c.state = 'open' OR c.state = 'explained' AND c.kind = 'late')
   AND (d.state = 'open' OR d.state = 'explained' AND d.kind = 'late')
   AND p.state = 'open'
UNION
SELECT d.day, d.booking, d.reference
  FROM reconciliation_difference d JOIN shift s ON s.id = CASE d.kind WHEN 'shift_open' THEN d.reference::uuid END
 WHERE d.gateway = %(gateway)s AND d.state = 'open' AND s.closed_at IS NOT NULL
