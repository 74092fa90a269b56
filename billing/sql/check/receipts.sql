-- Every booking of revenue beside the receipt of its transaction (or NULL), and every receipt that has none beside no booking.
-- is_due: the job that issues receipts has come past it.
SELECT CASE WHEN i.id IS NULL THEN 'receipt ' || r.id ELSE 'transaction ' || i.id END AS what, i.id AS booked, i.net, i.district,
       COALESCE(v.vat, 0) AS vat, i.id <= (SELECT p.id FROM receipt_progress p) AS is_due, r.id AS receipt, r.kind, r.number,
       r.amount, r.vat AS receipt_vat, r.district AS receipt_district,
       c.kind = 'receipt' AND c.session_id = r.session_id AS corrects_its_own, x.number AS invoice_number
  FROM (SELECT e.transaction_id AS id, -e.amount AS net, split_part(a.code, '/', 2) AS district
          FROM ledger_entry e JOIN ledger_account a ON a.id = e.account_id AND a.kind = 'revenue') i
  LEFT JOIN (SELECT e.transaction_id AS id, -e.amount AS vat
               FROM ledger_entry e JOIN ledger_account a ON a.id = e.account_id AND a.code = 'vat') v ON v.id = i.id
  FULL JOIN receipt r ON r.id = i.id
  LEFT JOIN receipt c ON c.id = r.corrects
  LEFT JOIN einvoice x ON x.id = r.id
