-- The two sides of every name that one of them dates to the day, where they differ, and the kind of the difference.
-- In: theirs, ours; gateway, source; since, until; list_since, list_until (how far the list is whole), late_until.
-- Out: found; amount is theirs above ours on the day.
CREATE TEMPORARY TABLE found ON COMMIT DROP AS
WITH sides AS MATERIALIZED (
    SELECT COALESCE(t.booking, o.booking) AS booking, COALESCE(t.name, o.name) AS reference, t.amount AS theirs, o.amount AS ours,
           COALESCE(t.today, 0) - COALESCE(o.today, 0) AS amount, COALESCE(t.at, o.at) AS at, t.source, t.payment_id, t.description,
           t.is_second, COALESCE(t.is_today, false) OR COALESCE(o.is_today, false) AS is_today
      FROM theirs t FULL JOIN ours o ON o.booking = t.booking AND o.name = t.name
     WHERE COALESCE(t.booking, '') NOT IN ('fee', 'payout')
       AND (t.amount IS DISTINCT FROM o.amount OR t.today IS DISTINCT FROM o.today)
       AND (t.is_today OR o.is_today OR t.name IS NULL)
), told AS (
    SELECT b.*, c.at AS told_at, c.client IS NOT NULL AS is_assigned,
           c.at >= %(since)s AND c.at < %(until)s AS is_told_today
      FROM sides b LEFT JOIN LATERAL (
           SELECT k.at, k.client FROM credit k
            WHERE b.booking = 'transfer' AND k.gateway = %(gateway)s AND k.transaction_id = substr(b.reference, length(%(gateway)s) + 2)
            LIMIT 1) c ON true
)
SELECT booking, reference, theirs, ours, amount, at, source, payment_id, description, CASE
           WHEN COALESCE(theirs, 0) = COALESCE(ours, 0) THEN 'late'
           WHEN theirs IS NULL AND (told_at < %(list_since)s OR told_at >= %(list_until)s) THEN 'late'
           WHEN theirs IS NULL AND %(source)s = 'list' AND %(list_until)s < %(late_until)s THEN 'late'
           WHEN theirs IS NULL THEN 'missing_at_gateway'
           WHEN ours IS NULL THEN CASE booking
               WHEN 'payment' THEN CASE WHEN is_second THEN 'doubled' ELSE 'missing_at_us' END
               WHEN 'transfer' THEN CASE WHEN told_at IS NOT NULL AND NOT is_assigned THEN 'unmatched_credit' ELSE 'missing_at_us' END
               WHEN 'refund' THEN 'refund_at_gateway'
               WHEN 'debit' THEN 'bank_debit'
               WHEN 'dispute' THEN 'dispute'
               ELSE 'other' END
           WHEN booking = 'refund' AND theirs > ours THEN 'refund_failed'
           ELSE 'wrong_amount' END AS kind,
       COALESCE(theirs, 0) = COALESCE(ours, 0) OR told_at < %(list_since)s OR told_at >= %(list_until)s AS is_matched
  FROM told WHERE is_today OR (theirs IS NULL AND is_told_today)
