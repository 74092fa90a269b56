-- What the gateways tell us, stored as it came before anything is done about it; and what we ask of them, written before it is asked.
-- Down: drop table gateway_call, card, webhook_event.

CREATE TABLE webhook_event (
    gateway     text NOT NULL,
    id          text NOT NULL CHECK (id <> ''),  -- the gateway's own: a repeated event is the same row
    kind        text NOT NULL,
    body        bytea NOT NULL,                  -- byte by byte as it was signed
    state       text NOT NULL CHECK (state IN ('waiting', 'handled', 'unknown', 'parked')),
    received_at timestamptz NOT NULL,
    settled_at  timestamptz,                     -- handled, found to be of an unknown kind, or parked
    tries       integer NOT NULL DEFAULT 0 CHECK (tries >= 0),
    retry_at    timestamptz NOT NULL,            -- real time, as the cadence of jobs is, also where business time is simulated
    error       text,
    PRIMARY KEY (gateway, id),
    CHECK ((state = 'waiting') = (settled_at IS NULL)),
    CHECK (state <> 'parked' OR error IS NOT NULL)
);
CREATE INDEX webhook_event_waiting ON webhook_event (retry_at) WHERE state = 'waiting';
CREATE INDEX webhook_event_parked ON webhook_event (received_at) WHERE state = 'parked';
CREATE INDEX webhook_event_settled ON webhook_event (settled_at) WHERE state IN ('handled', 'unknown');

-- The card that a driver has left with the gateway: its names there.
CREATE TABLE card (
    client         text PRIMARY KEY,
    customer       text NOT NULL,
    payment_method text NOT NULL,
    kept_at        timestamptz NOT NULL
);

-- What we ask of a gateway, written before it is asked: the key makes a repetition harmless, and what was asked with it must be
-- the same each time. Times are real, as the gateway's own are.
CREATE TABLE gateway_call (
    key        text PRIMARY KEY,
    payment_id uuid NOT NULL REFERENCES payment,
    verb       text NOT NULL CHECK (verb IN ('hold', 'charge', 'capture', 'release', 'refund')),
    amount     bigint NOT NULL CHECK (amount >= 0),
    request    jsonb NOT NULL,                -- whatever else is sent
    state      text NOT NULL CHECK (state IN ('waiting', 'done', 'refused', 'parked')),
    made_at    timestamptz NOT NULL,
    retry_at   timestamptz NOT NULL,
    settled_at timestamptz,
    tries      integer NOT NULL DEFAULT 0 CHECK (tries >= 0),
    error      text,
    CHECK ((state = 'waiting') = (settled_at IS NULL)),
    CHECK (state NOT IN ('refused', 'parked') OR error IS NOT NULL)
);
CREATE INDEX gateway_call_waiting ON gateway_call (retry_at) WHERE state = 'waiting';
CREATE INDEX gateway_call_payment ON gateway_call (payment_id);
