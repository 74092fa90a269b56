-- What an operator had ordered may be given back by somebody on the gateway's page: so much of such a refund, and where it
-- failed, what the wallet was given in its place. Rows from before have none: `ledger check` names their payments.
-- Down: alter table gateway_refund drop column of_orders.

ALTER TABLE gateway_refund
    ADD COLUMN of_orders bigint NOT NULL DEFAULT 0,              -- VND of of_ours: what operators had ordered
    -- Of one that failed, the wallet was given of_orders more than of_wallet; less, where others gave it back meanwhile.
    ADD CHECK (CASE state WHEN 'given' THEN of_orders BETWEEN 0 AND of_ours ELSE of_orders BETWEEN -of_wallet AND of_ours END);
