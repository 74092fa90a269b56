-- What gateways told of money that they gave back: of which payment, where it came from, and whether it came back again.
-- Down: drop table gateway_refund; drop index refund_decided.

CREATE TABLE gateway_refund (
    gateway    text NOT NULL CHECK (gateway <> ''),
    reference  text NOT NULL CHECK (reference <> ''),            -- the gateway's own id of it
    payment_id uuid NOT NULL REFERENCES payment,
    refund_id  uuid REFERENCES refund,                           -- what it gives back of a session's charge
    amount     bigint NOT NULL CHECK (amount > 0),
    of_charge  bigint NOT NULL CHECK (of_charge >= 0),           -- VND of amount: taken back of the session's charge
    of_wallet  bigint NOT NULL CHECK (of_wallet >= 0),           -- the driver's own, that the payment had put into the wallet
    of_ours    bigint NOT NULL CHECK (of_ours >= 0),             -- neither: it stays in the account refund
    state      text NOT NULL CHECK (state IN ('given', 'failed')),
    told_at    timestamptz NOT NULL,
    failed_at  timestamptz,
    PRIMARY KEY (gateway, reference),
    CHECK (of_charge + of_wallet + of_ours = amount),
    CHECK ((of_charge > 0) = (refund_id IS NOT NULL)),
    CHECK ((state = 'failed') = (failed_at IS NOT NULL))
);
CREATE INDEX gateway_refund_payment ON gateway_refund (payment_id);
CREATE INDEX gateway_refund_refund ON gateway_refund (refund_id) WHERE refund_id IS NOT NULL;
