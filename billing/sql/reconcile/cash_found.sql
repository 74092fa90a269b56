-- The kind of each difference between attendants' shifts and the ledger. Both are written in one transaction, so a day's two
-- sides are the same, or something is wrong.
-- In: sides. Out: found (see found.sql).
CREATE TEMPORARY TABLE found ON COMMIT DROP AS
SELECT booking, reference, theirs, ours, amount, at, source, payment_id, description, CASE
           WHEN COALESCE(theirs, 0) = COALESCE(ours, 0) THEN 'late'
           WHEN theirs IS NULL THEN 'cash_not_moved'
           WHEN ours IS NULL THEN 'cash_not_booked'
           ELSE 'cash_wrong_amount' END AS kind,
       COALESCE(theirs, 0) = COALESCE(ours, 0) AS is_explained, false AS is_apart
  FROM sides WHERE amount <> 0
