-- Every reversal, with the number of its accounts whose entries are not the opposite of what it reverses.
SELECT t.kind || ' ' || t.reference AS what,
       (SELECT count(*)
          FROM (SELECT e.account_id, sum(e.amount) AS rest FROM ledger_entry e
                 WHERE e.transaction_id IN (t.id, t.reverses) GROUP BY e.account_id) both_sides
         WHERE both_sides.rest <> 0) AS unlike
  FROM ledger_transaction t WHERE t.reverses IS NOT NULL
