-- What goes back to people: withdrawals and refunds; attendants' shifts; who decided what, and why.
-- Down: drop table audit_log, cash_movement, shift, refund, withdrawal; alter table hold drop column kind.

-- Whose money is put aside: a driver's (wallet), or an attendant's, who has taken the price in cash (float).
ALTER TABLE hold ADD COLUMN kind text NOT NULL DEFAULT 'wallet';
ALTER TABLE hold ADD CONSTRAINT hold_kind CHECK (kind IN ('wallet', 'float')) NOT VALID;

-- Wallet money on its way to a driver's bank account. It left the wallet when it was requested.
CREATE TABLE withdrawal (
    id             uuid PRIMARY KEY,          -- also the reference of its ledger transactions
    client         text NOT NULL,
    amount         bigint NOT NULL CHECK (amount > 0),
    bank_bin       text NOT NULL,             -- the bank, as NAPAS numbers it
    account_number text NOT NULL,
    account_holder text NOT NULL,
    state          text NOT NULL DEFAULT 'requested' CHECK (state IN ('requested', 'paid', 'rejected')),
    bank_reference text,                      -- the bank's, of the transfer
    requested_at   timestamptz NOT NULL,
    decided_at     timestamptz,
    CHECK ((state = 'requested') = (decided_at IS NULL)),
    CHECK ((state = 'paid') = (bank_reference IS NOT NULL))
);
CREATE INDEX withdrawal_client ON withdrawal (client, id);
CREATE INDEX withdrawal_state ON withdrawal (state, id);

-- What of a charge is given back: asked for by the driver and decided by an operator (refund), or a mistake that an operator
-- takes back as a whole (void). Its ledger transactions have the reference <session>/<id>.
CREATE TABLE refund (
    id           uuid PRIMARY KEY,
    kind         text NOT NULL CHECK (kind IN ('refund', 'void')),
    session_id   uuid NOT NULL,
    client       text NOT NULL,               -- whose session it was
    reason       text NOT NULL CHECK (reason <> ''),
    state        text NOT NULL CHECK (state IN ('requested', 'rejected', 'pending_gateway', 'refunded')),
    charged      bigint NOT NULL CHECK (charged > 0),
    amount       bigint CHECK (amount BETWEEN 1 AND charged),
    to_debt      bigint NOT NULL DEFAULT 0 CHECK (to_debt >= 0),     -- of amount: taken off what was still owed
    to_gateway   bigint NOT NULL DEFAULT 0 CHECK (to_gateway >= 0),  -- goes back to the card
    to_purse     bigint NOT NULL DEFAULT 0 CHECK (to_purse >= 0),    -- to the wallet, or the float of who took cash
    requested_at timestamptz NOT NULL,
    decided_at   timestamptz,
    decided_by   text,
    decision     text,                        -- why, in the operator's words
    CHECK ((state = 'requested') = (decided_at IS NULL)),
    CHECK ((decided_at IS NULL) = (decided_by IS NULL)),
    CHECK ((state IN ('pending_gateway', 'refunded')) = (amount IS NOT NULL)),
    CHECK (to_debt + to_gateway + to_purse = COALESCE(amount, 0)),
    CHECK (state <> 'pending_gateway' OR to_gateway > 0)
);
CREATE UNIQUE INDEX refund_open ON refund (session_id) WHERE state = 'requested';
CREATE UNIQUE INDEX refund_void ON refund (session_id) WHERE kind = 'void';
CREATE INDEX refund_session ON refund (session_id);
CREATE INDEX refund_client ON refund (client, id);
CREATE INDEX refund_state ON refund (state, id);

-- The hours in which an attendant takes cash. VND that he counted; expected is worked out when the shift is closed.
CREATE TABLE shift (
    id         uuid PRIMARY KEY,
    attendant  text NOT NULL,
    opened_at  timestamptz NOT NULL,
    opening    bigint NOT NULL CHECK (opening >= 0),
    closed_at  timestamptz,
    counted    bigint CHECK (counted >= 0),
    expected   bigint,
    CHECK ((closed_at IS NULL) = (counted IS NULL) AND (closed_at IS NULL) = (expected IS NULL)),
    CHECK (closed_at >= opened_at)
);
CREATE UNIQUE INDEX shift_open ON shift (attendant) WHERE closed_at IS NULL;
CREATE INDEX shift_attendant ON shift (attendant, id);

-- Cash that went into an attendant's hand (above 0) or out of it.
CREATE TABLE cash_movement (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shift_id   uuid NOT NULL REFERENCES shift,
    kind       text NOT NULL CHECK (kind IN ('start', 'hand_back', 'payment')),
    session_id uuid NOT NULL,
    amount     bigint NOT NULL CHECK (amount <> 0),
    at         timestamptz NOT NULL,
    CHECK ((kind = 'hand_back') = (amount < 0))
);
CREATE INDEX cash_movement_shift ON cash_movement (shift_id, id);
CREATE INDEX cash_movement_session ON cash_movement (session_id);
CREATE TRIGGER cash_movement_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON cash_movement
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE audit_log (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL,
    actor   text NOT NULL,
    action  text NOT NULL,
    subject text NOT NULL,                    -- what it was done to: an id, or a person
    reason  text NOT NULL,
    details jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_log_subject ON audit_log (subject, id);
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
