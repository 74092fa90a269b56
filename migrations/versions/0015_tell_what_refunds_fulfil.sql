-- Which payment an operator's refund takes back, and how much of one on the gateway's page was what operators had ordered.
-- Refunds by card from before have neither: `ledger check` names their payments.
-- Down: alter table gateway_refund drop column of_orders; alter table refund drop column payment_id.

-- No foreign key: it would lock the payment behind the wallet, which everybody else does before.
ALTER TABLE refund
    ADD COLUMN payment_id uuid;                                  -- by card: the payment of which to_gateway is asked

ALTER TABLE gateway_refund
    ADD COLUMN of_orders bigint NOT NULL DEFAULT 0;              -- VND of of_ours: what operators had ordered
-- Of one that failed, the wallet was given of_orders more than of_wallet; less, where others gave it back meanwhile. (0, which
-- rows from before have, is in both ranges.)
ALTER TABLE gateway_refund ADD CHECK
    (CASE state WHEN 'given' THEN of_orders BETWEEN 0 AND of_ours ELSE of_orders BETWEEN -of_wallet AND of_ours END) NOT VALID;
