-- Every refund and void that gave something back, beside what its transaction took back of revenue and VAT (or NULL), and with
-- what was given back of its charge in all.
SELECT r.kind || ' ' || r.id AS what, r.amount, b.taken, r.charged, sum(r.amount) OVER (PARTITION BY r.session_id) AS given,
       b.at IS NOT DISTINCT FROM r.decided_at AS is_dated
  FROM refund r
  LEFT JOIN (SELECT t.kind, t.reference, t.at, sum(e.amount) AS taken
               FROM ledger_transaction t
               JOIN ledger_entry e ON e.transaction_id = t.id
               JOIN ledger_account a ON a.id = e.account_id AND a.kind IN ('revenue', 'vat')
              WHERE t.kind IN ('refund', 'reversal')
              GROUP BY t.id) b
         ON b.kind = CASE r.kind WHEN 'void' THEN 'reversal' ELSE 'refund' END AND b.reference = r.session_id || '/' || r.id
 WHERE r.amount IS NOT NULL
