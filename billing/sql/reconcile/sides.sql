-- The two sides of every name that one of them dates to the day, where they differ.
-- In: theirs, ours. Out: sides; amount is theirs above ours on the day.
CREATE TEMPORARY TABLE sides ON COMMIT DROP AS
SELECT COALESCE(t.booking, o.booking) AS booking, COALESCE(t.name, o.name) AS reference, t.amount AS theirs, o.amount AS ours,
       COALESCE(t.today, 0) - COALESCE(o.today, 0) AS amount, COALESCE(t.at, o.at) AS at, t.source, t.payment_id, t.description,
       COALESCE(t.is_second, false) AS is_second, COALESCE(t.is_today, false) OR COALESCE(o.is_today, false) AS is_today
  FROM theirs t FULL JOIN ours o ON o.booking = t.booking AND o.name = t.name
 WHERE COALESCE(t.booking, '') NOT IN ('fee', 'payout')
   AND (t.amount IS DISTINCT FROM o.amount OR t.today IS DISTINCT FROM o.today)
   AND (t.is_today OR o.is_today OR t.name IS NULL)
