-- How a payment by card stands with what operators ordered back of it, in VND. An order that the gateway carried out under our
-- key is done with; the others wait for the gateway, or are settled: in the wallet, or by somebody on the gateway's page.
-- In:  the payment. Out: one row.
--      left_there  what the gateway has of it still; below zero where more came back than we know to be paid
--      waiting     ordered, and not settled
--      settled     ordered and settled, less what the wallet was given of that: the page must have given it back
--      by_page     what the page gave back of orders
CREATE OR REPLACE FUNCTION refund_standing(p_payment uuid)
RETURNS TABLE (left_there bigint, waiting bigint, settled bigint, by_page bigint) LANGUAGE sql STABLE AS $$
    WITH orders AS (
        SELECT r.state = 'pending_gateway' AS waits, r.to_gateway - COALESCE(put.amount, 0) AS amount
          FROM payment p JOIN refund r ON r.session_id = p.session_id AND r.to_gateway > 0
          LEFT JOIN gateway_refund own ON own.refund_id = r.id
          LEFT JOIN LATERAL (
               SELECT sum(e.amount) AS amount FROM ledger_transaction t
                 JOIN ledger_entry e ON e.transaction_id = t.id
                 JOIN ledger_account a ON a.id = e.account_id AND a.code = 'refund'
                WHERE t.kind = 'refund_to_wallet' AND t.reference = concat(r.session_id, '/', r.id)) put ON true
         WHERE p.id = p_payment AND own.state IS DISTINCT FROM 'given'
           AND COALESCE(own.payment_id, payment_to_refund(r.session_id, r.id)) = p.id),
    told AS (
        SELECT COALESCE(sum(amount) FILTER (WHERE state = 'given'), 0) AS given, COALESCE(sum(of_orders), 0) AS by_page
          FROM gateway_refund WHERE payment_id = p_payment)
    SELECT (COALESCE((SELECT paid FROM payment WHERE id = p_payment), 0) - told.given)::bigint,
           COALESCE((SELECT sum(amount) FROM orders WHERE waits), 0)::bigint,
           COALESCE((SELECT sum(amount) FROM orders WHERE NOT waits), 0)::bigint, told.by_page::bigint
      FROM told
$$;
