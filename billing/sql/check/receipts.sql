-- Every booking of revenue beside the receipt of its transaction (or NULL). is_due: the job that issues receipts has come past it.
SELECT 'transaction ' || i.id AS what, i.net, i.district, COALESCE(v.vat, 0) AS vat,
       i.id <= (SELECT p.id FROM receipt_progress p) AS is_due, r.id AS receipt, r.amount, r.vat AS receipt_vat, r.district AS receipt_district
  FROM (SELECT e.transaction_id AS id, -e.amount AS net, split_part(a.code, '/', 2) AS district
          FROM ledger_entry e JOIN ledger_account a ON a.id = e.account_id AND a.kind = 'revenue') i
  LEFT JOIN (SELECT e.transaction_id AS id, -e.amount AS vat
               FROM ledger_entry e JOIN ledger_account a ON a.id = e.account_id AND a.code = 'vat') v ON v.id = i.id
  LEFT JOIN receipt r ON r.id = i.id
