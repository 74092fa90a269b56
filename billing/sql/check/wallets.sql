-- Every wallet row beside what its accounts' entries and its pending holds say.
SELECT COALESCE(w.kind || '/' || w.owner, s.kind || '/' || s.owner, 'hold of ' || h.kind || '/' || h.owner) AS what,
       COALESCE(w.balance, 0) AS balance, COALESCE(s.balance, 0) AS entries_balance,
       COALESCE(w.owed, 0) AS owed, COALESCE(s.owed, 0) AS entries_owed,
       COALESCE(w.held, 0) AS held, COALESCE(h.amount, 0) AS pending
  FROM wallet w
  FULL JOIN (SELECT m.owner, CASE m.kind WHEN 'float' THEN 'float' ELSE 'wallet' END AS kind,
                    -sum(m.amount) FILTER (WHERE m.kind <> 'receivable') AS balance,
                    sum(m.amount) FILTER (WHERE m.kind = 'receivable') AS owed
               FROM (SELECT a.id, a.owner, a.kind, sum(e.amount) AS amount  -- by id: in the order of the index of entries
                       FROM ledger_account a JOIN ledger_entry e ON e.account_id = a.id
                      WHERE a.owner IS NOT NULL
                      GROUP BY a.id) m
              GROUP BY 1, 2) s ON s.owner = w.owner AND s.kind = w.kind
  FULL JOIN (SELECT p.owner, p.kind, sum(p.amount) AS amount FROM hold p WHERE p.state = 'pending' GROUP BY p.owner, p.kind) h
         ON h.owner = w.owner AND h.kind = w.kind
