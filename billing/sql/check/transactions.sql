-- Every transaction with the sums of its entries, beside the session that it charges (or NULL), and every session that
-- was not charged beside no transaction. {sessions} has id, fee and ended_at.
SELECT t.kind || ' ' || t.reference AS what, s.id AS session, t.kind, t.id, m.total, m.entries, s.fee,
       -m.income AS gross, -m.vat AS vat, v.points[width_bucket(t.at, v.froms)] AS basis_points, s.ended_at >= b.began AS must_be_charged
  FROM ledger_transaction t
  LEFT JOIN (SELECT e.transaction_id, sum(e.amount) AS total, count(*) AS entries,
                    (sum(e.amount) FILTER (WHERE a.id IS NOT NULL))::bigint AS income,
                    COALESCE(sum(e.amount) FILTER (WHERE a.kind = 'vat'), 0)::bigint AS vat
               FROM ledger_entry e
               LEFT JOIN (SELECT c.id, c.kind FROM ledger_account c WHERE c.kind IN ('revenue', 'vat')) a ON a.id = e.account_id
              GROUP BY e.transaction_id) m ON m.transaction_id = t.id
  FULL JOIN ({sessions}) s
    ON s.id = CASE WHEN t.kind = 'parking' AND t.reference ~ '^[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$' THEN t.reference::uuid END
 CROSS JOIN (SELECT min(first.at) AS began FROM ledger_transaction first) b
 CROSS JOIN (SELECT array_agg(r.valid_from ORDER BY r.valid_from) AS froms, array_agg(r.basis_points ORDER BY r.valid_from) AS points
               FROM vat_rate r) v
