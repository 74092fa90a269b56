-- What the ledger has for the cash in attendants' hands: a start puts its price aside in the float, an end gives back what the
-- charge did not take of it, a payment is taken out of the float, and what is voided or refunded comes back into it. Top-ups are
-- paid in at the bank. Each is named after the attendant and the session; a counted difference after its shift.
-- In: clearing; since, until; list_since, list_until; wide_least_id, wide_bound_id (of the list's span). Out: booked.
CREATE TEMPORARY TABLE booked ON COMMIT DROP AS
WITH held AS (
    SELECT h.owner, h.id, h.amount, h.created_at, h.ended_at,
           COALESCE((SELECT e.amount FROM ledger_transaction t JOIN ledger_entry e ON e.transaction_id = t.id
                      WHERE t.kind = 'parking' AND t.reference = h.id::text
                        AND e.account_id = (SELECT a.id FROM ledger_account a WHERE a.code = 'float/' || h.owner)), 0) AS charged
      FROM hold h
     WHERE h.kind = 'float' AND (h.created_at >= %(list_since)s AND h.created_at < %(list_until)s
                              OR h.ended_at >= %(list_since)s AND h.ended_at < %(list_until)s)
), entry AS (
    SELECT a.owner, a.kind AS account, t.id, t.kind, t.at, e.amount, COALESCE(r.kind, t.kind) AS of_kind, COALESCE(r.reference, t.reference) AS reference
      FROM ledger_account a
      JOIN ledger_entry e ON e.account_id = a.id AND e.transaction_id >= %(wide_least_id)s AND e.transaction_id < %(wide_bound_id)s
      JOIN ledger_transaction t ON t.id = e.transaction_id
      LEFT JOIN ledger_transaction r ON r.id = t.reverses
     WHERE a.kind = 'float' OR a.code = %(clearing)s
), moved AS (
    SELECT 'cash_start' AS booking, owner || '/' || id AS name, NULL::uuid AS id, amount, created_at AS at FROM held
    UNION ALL
    SELECT 'cash_hand_back', owner || '/' || id, NULL, charged - amount, ended_at FROM held WHERE ended_at IS NOT NULL
    UNION ALL
    SELECT 'cash_shift', reference, id, amount, at FROM entry WHERE account <> 'float' AND of_kind = 'cash_shift'
    UNION ALL
    SELECT CASE WHEN of_kind = 'cash' THEN 'cash_payment' WHEN kind = 'parking' THEN 'cash_start' ELSE 'cash_hand_back' END,
           owner || '/' || CASE WHEN of_kind = 'cash' THEN
               COALESCE((SELECT p.session_id::text FROM payment p WHERE p.reference = entry.reference), entry.reference)
               ELSE split_part(reference, '/', 1) END, id, amount, at
      FROM entry
     WHERE account = 'float' AND of_kind <> 'float_topup'
       AND NOT (kind = 'parking' AND EXISTS (SELECT FROM held h WHERE h.owner = entry.owner AND h.id::text = reference AND h.ended_at IS NOT NULL))
)
SELECT booking, name, id, amount, at, at >= %(since)s AND at < %(until)s AS is_today
  FROM moved WHERE amount <> 0 AND at >= %(list_since)s AND at < %(list_until)s
