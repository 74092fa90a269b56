-- The kind of each difference between a gateway's list and the ledger.
-- In: sides; gateway, source; since, until; list_since, list_until (how far the list is whole), late_until.
-- Out: found; is_explained: nothing is left to do; is_apart: the day's sums are the same on both sides all the same.
CREATE TEMPORARY TABLE found ON COMMIT DROP AS
WITH told AS (
    SELECT b.*, c.at AS told_at, c.client IS NOT NULL AS is_assigned,
           c.at >= %(since)s AND c.at < %(until)s AS is_told_today,
           COALESCE(b.theirs, 0) = COALESCE(b.ours, 0) OR c.at < %(list_since)s OR c.at >= %(list_until)s AS is_matched
      FROM sides b LEFT JOIN LATERAL (
           SELECT k.at, k.client FROM credit k
            WHERE b.booking = 'transfer' AND k.gateway = %(gateway)s AND k.transaction_id = substr(b.reference, length(%(gateway)s) + 2)
            LIMIT 1) c ON true
), kinds AS (
    SELECT *, CASE
           WHEN COALESCE(theirs, 0) = COALESCE(ours, 0) THEN 'late'
           WHEN theirs IS NULL AND (told_at < %(list_since)s OR told_at >= %(list_until)s) THEN 'late'
           WHEN theirs IS NULL AND %(source)s = 'list' AND %(list_until)s < %(late_until)s THEN 'late'
           WHEN theirs IS NULL THEN 'missing_at_gateway'
           WHEN ours IS NULL THEN CASE booking
               WHEN 'payment' THEN CASE WHEN is_second THEN 'doubled' ELSE 'missing_at_us' END
               WHEN 'transfer' THEN CASE WHEN told_at IS NOT NULL AND NOT is_assigned THEN 'unmatched_credit' ELSE 'missing_at_us' END
               WHEN 'refund' THEN 'refund_at_gateway'
               WHEN 'dispute' THEN 'dispute'
               ELSE 'other' END
           WHEN booking = 'refund' AND theirs > ours THEN 'refund_failed'
           ELSE 'wrong_amount' END AS kind
      FROM told WHERE is_today OR (theirs IS NULL AND is_told_today)
)
SELECT booking, reference, theirs, ours, amount, at, source, payment_id, description, kind,
       kind = 'late' AND COALESCE(is_matched, false) AS is_explained, false AS is_apart
  FROM kinds
