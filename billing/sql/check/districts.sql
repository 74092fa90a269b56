-- What receipts and ledger say of each district without VAT, as far as the job that issues receipts has come: also what has a
-- receipt and was not booked shows in it.
SELECT 'district ' || COALESCE(r.district, l.district) AS what, COALESCE(r.net, 0) AS receipts, COALESCE(l.net, 0) AS booked
  FROM (SELECT district, sum(amount - vat) AS net FROM receipt
         WHERE id <= (SELECT p.id FROM receipt_progress p) GROUP BY district) r
  FULL JOIN (SELECT split_part(a.code, '/', 2) AS district, -sum(e.amount) AS net
               FROM ledger_entry e JOIN ledger_account a ON a.id = e.account_id AND a.kind = 'revenue'
              WHERE e.transaction_id <= (SELECT p.id FROM receipt_progress p) GROUP BY 1) l ON l.district = r.district
