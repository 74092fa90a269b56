-- Every district's day whose share was worked out, beside what was earned on it, what its share is then, and what is booked; and every
-- booking without such a day. `skipped` are days since the one before.
SELECT 'city_share ' || COALESCE(d.district || '/' || d.day, t.reference) AS what, d.revenue, d.earned, d.share, d.due, d.skipped,
       COALESCE(t.cost, 0) AS cost, COALESCE(t.debt, 0) AS debt
  FROM (SELECT c.district, c.day, c.revenue, c.share, net_revenue(c.district, c.day) AS earned,
               city_share_of(sum(c.revenue::numeric * c.basis_points) OVER so_far)
               - COALESCE(city_share_of(sum(c.revenue::numeric * c.basis_points) OVER before), 0) AS due,
               c.day - lag(c.day, 1, c.day - 1) OVER so_far - 1 AS skipped
          FROM city_share_day c
        WINDOW so_far AS (PARTITION BY c.district ORDER BY c.day),
               before AS (PARTITION BY c.district ORDER BY c.day ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) d
  FULL JOIN (SELECT b.reference, sum(e.amount) FILTER (WHERE a.code = 'city_share_cost/' || split_part(b.reference, '/', 1)) AS cost,
                    -sum(e.amount) FILTER (WHERE a.code = 'city_share') AS debt
               FROM ledger_transaction b JOIN ledger_entry e ON e.transaction_id = b.id JOIN ledger_account a ON a.id = e.account_id
              WHERE b.kind = 'city_share' GROUP BY b.reference) t ON t.reference = d.district || '/' || d.day
