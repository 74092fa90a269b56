-- Keep the differences. What was healed stays as it was found.
-- In: found; day, gateway, now.
INSERT INTO reconciliation_difference AS d
       (day, gateway, booking, reference, kind, theirs, ours, amount, at, payment_id, source, description, state, found_at, settled_at)
SELECT %(day)s, %(gateway)s, booking, reference, kind, theirs, ours, amount, at, payment_id, source, description,
       CASE WHEN is_explained THEN 'explained' ELSE 'open' END, %(now)s,
       CASE WHEN is_explained THEN %(now)s::timestamptz END
  FROM found ORDER BY booking, reference
ON CONFLICT (day, gateway, booking, reference) DO UPDATE
   SET kind = EXCLUDED.kind, theirs = EXCLUDED.theirs, ours = EXCLUDED.ours, amount = EXCLUDED.amount, state = EXCLUDED.state,
       settled_at = EXCLUDED.settled_at, error = NULL
 WHERE d.state <> 'healed'
   AND (d.kind, d.theirs, d.ours, d.amount, d.state)
       IS DISTINCT FROM (EXCLUDED.kind, EXCLUDED.theirs, EXCLUDED.ours, EXCLUDED.amount, EXCLUDED.state)
