-- Every payment of which something was ordered or given back by card: what the gateway's page must have given back of orders
-- that are settled, and what it gave. And the account of what gateways are to give back, beside what it must be.
SELECT 'payment ' || p.id AS what, s.settled, s.by_page, NULL::numeric AS booked, NULL::numeric AS due
  FROM (SELECT payment_id AS id FROM gateway_refund
        UNION SELECT payment_to_refund(session_id, id) FROM refund WHERE to_gateway > 0) p
 CROSS JOIN LATERAL refund_standing(p.id) s
UNION ALL
SELECT 'account refund', NULL, NULL,
       COALESCE((SELECT sum(e.amount) FROM ledger_account a JOIN ledger_entry e ON e.account_id = a.id WHERE a.code = 'refund'), 0),
       COALESCE((SELECT sum(CASE state WHEN 'given' THEN of_ours ELSE of_orders END) FROM gateway_refund), 0)
       - COALESCE((SELECT sum(r.to_gateway) FROM refund r
                    WHERE NOT EXISTS (SELECT FROM gateway_refund g WHERE g.refund_id = r.id AND g.state = 'given')), 0)
       + COALESCE((SELECT sum(e.amount) FROM refund r
                     JOIN ledger_transaction t ON t.kind = 'refund_to_wallet' AND t.reference = concat(r.session_id, '/', r.id)
                     JOIN ledger_entry e ON e.transaction_id = t.id
                     JOIN ledger_account a ON a.id = e.account_id AND a.code = 'refund'
                    WHERE r.to_gateway > 0
                      AND NOT EXISTS (SELECT FROM gateway_refund g WHERE g.refund_id = r.id AND g.state = 'given')), 0)
