-- Money that others send us: a bank's credit, a payment at VNPay. One row each, however often it is told.
-- Down: drop table credit.

CREATE TABLE credit (
    gateway        text NOT NULL CHECK (gateway IN ('vietqr', 'vnpay')),
    transaction_id text NOT NULL CHECK (transaction_id <> ''),  -- the bank's or VNPay's own
    amount         bigint NOT NULL CHECK (amount > 0),          -- VND
    at             timestamptz NOT NULL,                        -- when it came, as the gateway says
    description    text NOT NULL,                               -- the text of the transfer
    received_at    timestamptz NOT NULL,                        -- when we were told first, by the business clock
    payment_id     uuid REFERENCES payment,
    client         text CHECK (client <> ''),                   -- whose money it is; none: nobody knows yet, and it is not booked
    note           text CHECK (note <> ''),                     -- how it differs from what was asked for, or why nobody knows
    PRIMARY KEY (gateway, transaction_id),
    CHECK (payment_id IS NULL OR client IS NOT NULL),
    CHECK (client IS NOT NULL OR note IS NOT NULL)
);
CREATE INDEX credit_unmatched ON credit (at) WHERE client IS NULL;
CREATE INDEX credit_payment ON credit (payment_id) WHERE payment_id IS NOT NULL;
