-- Every entry of a wallet or a float with what was in it after that, in the order of booking.
SELECT a.code || ' after transaction ' || o.transaction_id AS what, o.after
  FROM (SELECT e.account_id, e.transaction_id, -sum(e.amount) OVER (PARTITION BY e.account_id ORDER BY t.number) AS after
          FROM ledger_entry e JOIN ledger_transaction t ON t.id = e.transaction_id
         WHERE e.account_id IN (SELECT own.id FROM ledger_account own WHERE own.kind IN ('wallet', 'float'))) o
  JOIN ledger_account a ON a.id = o.account_id
