-- Withdrawals that were requested or decided on the day, and whose bookings say something else than their own row: what is
-- requested lies in clearing/bank, what was paid or rejected has left it.
-- In: since, until; least_id, bound_id. Out: more rows of found.
INSERT INTO found
SELECT 'withdrawal_row', w.id::text, w.due, b.amount, w.due - b.amount, w.requested_at, NULL, NULL::uuid, w.account_holder,
       'withdrawal_row', false, true
  FROM (SELECT *, CASE state WHEN 'requested' THEN -amount ELSE 0 END AS due FROM withdrawal
         WHERE id >= %(least_id)s AND id < %(bound_id)s OR decided_at >= %(since)s AND decided_at < %(until)s) w
 CROSS JOIN LATERAL (
       SELECT COALESCE(sum(e.amount), 0)::bigint AS amount
         FROM ledger_transaction t JOIN ledger_entry e ON e.transaction_id = t.id
          AND e.account_id = (SELECT a.id FROM ledger_account a WHERE a.code = 'clearing/bank')
        WHERE t.reference = w.id::text AND t.kind IN ('withdrawal', 'withdrawal_paid', 'withdrawal_rejected')) b
 WHERE w.due <> b.amount
