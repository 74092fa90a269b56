-- What a gateway's own list says of a Hanoi day beside what the ledger has, and each difference with what became of it.
-- Down: drop table reconciliation_difference, reconciliation; drop index payment_settled.

CREATE TABLE reconciliation (
    day         date NOT NULL,
    gateway     text NOT NULL CHECK (gateway <> ''),
    source      text NOT NULL CHECK (source IN ('list', 'file', 'credits')),  -- credits: only what we were told at the time
    payments    bigint NOT NULL,          -- that either side dates to the day
    theirs      bigint NOT NULL,          -- VND by the gateway's list, fees and payouts not counted
    ours        bigint NOT NULL,          -- VND by the ledger
    fees        bigint NOT NULL,          -- VND that the gateway kept
    residue     bigint NOT NULL,          -- VND of theirs - ours that no difference holds: 0, or the comparison is wrong
    compared_at timestamptz NOT NULL,
    PRIMARY KEY (day, gateway)
);

CREATE TABLE reconciliation_difference (
    day         date NOT NULL,
    gateway     text NOT NULL,
    booking     text NOT NULL,            -- kind and reference of the ledger's transaction, as it is or should be
    reference   text NOT NULL,
    kind        text NOT NULL CHECK (kind <> ''),
    theirs      bigint,                   -- VND in all by the gateway's list; none: it is not there
    ours        bigint,                   -- VND in all by the ledger; none: it is not there
    amount      bigint NOT NULL,          -- VND by which theirs is above ours on this day
    at          timestamptz NOT NULL,     -- by the list, else by the ledger
    payment_id  uuid REFERENCES payment,
    source      text,                     -- the gateway's id of the payment
    description text,
    state       text NOT NULL CHECK (state IN ('open', 'healed', 'explained')),
    error       text,                     -- why it could not be healed
    found_at    timestamptz NOT NULL,
    settled_at  timestamptz,
    PRIMARY KEY (day, gateway, booking, reference),
    FOREIGN KEY (day, gateway) REFERENCES reconciliation,
    CHECK ((state = 'open') = (settled_at IS NULL))
);
CREATE INDEX reconciliation_difference_open ON reconciliation_difference (day) WHERE state = 'open';
CREATE INDEX reconciliation_difference_payment ON reconciliation_difference (payment_id) WHERE payment_id IS NOT NULL;
