-- Every entry of a wallet or a float with what was in it after that, in the order of booking.
SELECT a.code || ' after transaction ' || o.transaction_id AS what, o.after
  FROM (SELECT e.account_id, e.transaction_id, -sum(e.amount) OVER (PARTITION BY e.account_id ORDER BY t.number) AS after
          FROM (SELECT w.account_id, w.transaction_id, w.amount
                  FROM ledger_entry w JOIN ledger_account own ON own.id = w.account_id
                 WHERE own.kind IN ('wallet', 'float')
                OFFSET 0) e  -- a third of all entries: picked out before they are sorted
          JOIN ledger_transaction t ON t.id = e.transaction_id) o
  JOIN ledger_account a ON a.id = o.account_id
