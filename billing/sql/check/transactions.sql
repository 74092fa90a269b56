-- Every transaction with the sums of its entries, beside the session that it charges (or NULL), and every session that
-- was not charged beside no transaction. {sessions} has id, fee and ended_at. {income} and {vat} are ids of accounts, so that
-- entries are joined with nothing: they are summed in the order of their primary key, and no table of sums fills the memory.
SELECT t.kind || ' ' || t.reference AS what, s.id AS session, t.kind, t.id, m.total, m.entries, s.fee,
       -m.income AS gross, -m.vat AS vat, v.points[width_bucket(t.at, v.froms)] AS basis_points, s.ended_at >= b.began AS must_be_charged
  FROM ledger_transaction t
  LEFT JOIN (SELECT e.transaction_id, sum(e.amount) AS total, count(*) AS entries,
                    (sum(e.amount) FILTER (WHERE e.account_id = ANY ({income})))::bigint AS income,
                    COALESCE(sum(e.amount) FILTER (WHERE e.account_id = ANY ({vat})), 0)::bigint AS vat
               FROM ledger_entry e GROUP BY e.transaction_id) m ON m.transaction_id = t.id
  -- An id as text is what its charge's reference is, byte by byte.
  FULL JOIN ({sessions}) s ON s.id::text COLLATE "C" = CASE t.kind WHEN 'parking' THEN t.reference END COLLATE "C"
 CROSS JOIN (SELECT min(first.at) AS began FROM ledger_transaction first) b
 CROSS JOIN (SELECT array_agg(r.valid_from ORDER BY r.valid_from) AS froms, array_agg(r.basis_points ORDER BY r.valid_from) AS points
               FROM vat_rate r) v
