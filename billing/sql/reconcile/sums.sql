-- Keep the day's sums, each taken by itself, and what of their difference no row of found holds.
-- In: line, theirs, ours, booked, found; day, gateway, source, counted (which bookings are payments), now.
INSERT INTO reconciliation (day, gateway, source, payments, theirs, ours, fees, residue, compared_at)
SELECT %(day)s, %(gateway)s, %(source)s,
       (SELECT count(*) FROM theirs t FULL JOIN ours o ON o.booking = t.booking AND o.name = t.name
         WHERE COALESCE(t.booking, o.booking) = ANY (%(counted)s) AND (t.is_today OR o.is_today)),
       l.theirs, b.ours, l.fees, l.theirs - b.ours - f.amount, %(now)s
  FROM (SELECT COALESCE(sum(amount) FILTER (WHERE booking NOT IN ('fee', 'payout')), 0)::bigint AS theirs,
               COALESCE(sum(fee), 0)::bigint AS fees
          FROM (SELECT DISTINCT ON (id) * FROM line ORDER BY id) o WHERE at >= %(since)s AND at < %(until)s) l,
       (SELECT COALESCE(sum(amount) FILTER (WHERE is_today), 0)::bigint AS ours FROM booked) b,
       (SELECT COALESCE(sum(amount) FILTER (WHERE NOT is_apart), 0)::bigint AS amount FROM found) f
ON CONFLICT (day, gateway) DO UPDATE
   SET source = EXCLUDED.source, payments = EXCLUDED.payments, theirs = EXCLUDED.theirs, ours = EXCLUDED.ours,
       fees = EXCLUDED.fees, residue = EXCLUDED.residue, compared_at = EXCLUDED.compared_at
