-- The kind of each difference between what left our bank account and the withdrawals that were noted as paid. A bank dates what
-- is sent in the evening to the next morning, and an operator may note it a day late: only where the statements of three days
-- lack a withdrawal, it was not sent.
-- In: sides; day, gateway, source; list_since, list_until. Out: found (see found.sql).
CREATE TEMPORARY TABLE found ON COMMIT DROP AS
WITH known AS (
    SELECT count(*) = 3 AS are_all
      FROM generate_series(-1, 1) n CROSS JOIN LATERAL (SELECT %(day)s::date + n AS day) d
     WHERE (d.day::timestamp AT TIME ZONE 'Asia/Ho_Chi_Minh' >= %(list_since)s
            AND (d.day + 1)::timestamp AT TIME ZONE 'Asia/Ho_Chi_Minh' <= %(list_until)s AND %(source)s = 'file')
        OR EXISTS (SELECT FROM reconciliation r WHERE r.day = d.day AND r.gateway = %(gateway)s AND r.source = 'file')
)
SELECT s.booking, s.reference, s.theirs, s.ours, s.amount, s.at, s.source, s.payment_id, s.description, CASE
           WHEN COALESCE(s.theirs, 0) = COALESCE(s.ours, 0) THEN 'late'
           WHEN s.theirs IS NULL THEN CASE WHEN k.are_all THEN 'withdrawal_not_sent' ELSE 'late' END
           WHEN s.booking = 'debit' THEN 'bank_debit'
           WHEN s.ours IS NULL THEN CASE WHEN w.state = 'rejected' THEN 'withdrawal_rejected' ELSE 'withdrawal_not_noted' END
           ELSE 'withdrawal_wrong_amount' END AS kind,
       COALESCE(s.theirs, 0) = COALESCE(s.ours, 0) AS is_explained, false AS is_apart
  FROM sides s CROSS JOIN known k
  LEFT JOIN withdrawal w ON w.id = CASE s.booking WHEN 'withdrawal_paid' THEN s.reference::uuid END
 WHERE s.is_today
