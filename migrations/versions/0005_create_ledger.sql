-- The ledger: accounts, transactions whose entries sum to zero, wallets that they move, holds; and VAT's rates.
-- Down: drop everything listed here, in reverse order (the ledger with all that was booked).

-- What was only recorded as due was never paid by anybody: no money moved before there was a ledger.
DROP TABLE payment;

-- An account's code begins with its kind: wallet/driver-1, revenue/002/iparking, vat.
CREATE TABLE ledger_account (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code  text NOT NULL UNIQUE,
    kind  text GENERATED ALWAYS AS (split_part(code, '/', 1)) STORED
          CHECK (kind IN ('wallet', 'receivable', 'clearing', 'bank', 'revenue', 'vat', 'city_share', 'float', 'refund', 'fee',
                          'cash_difference', 'funding')),
    -- Whose it is, where it is somebody's.
    owner text GENERATED ALWAYS AS (
          CASE WHEN split_part(code, '/', 1) IN ('wallet', 'receivable', 'float') THEN substr(code, strpos(code, '/') + 1) END)
          STORED CHECK (owner <> '' AND (owner IS NULL OR strpos(code, '/') > 0))
);

CREATE TABLE ledger_transaction (
    id        uuid PRIMARY KEY,               -- a UUIDv7 of `at`
    kind      text NOT NULL CHECK (kind <> ''),
    reference text NOT NULL CHECK (reference <> ''),
    at        timestamptz NOT NULL,           -- when it was booked, by the business clock
    reverses  uuid UNIQUE REFERENCES ledger_transaction,
    -- The order of booking: who takes money out of a wallet has its lock before the number is drawn.
    number    bigint GENERATED ALWAYS AS IDENTITY,
    UNIQUE (kind, reference)                  -- nothing is booked twice
);

-- Debit is positive, credit negative; integer VND.
CREATE TABLE ledger_entry (
    transaction_id uuid NOT NULL REFERENCES ledger_transaction,
    account_id     bigint NOT NULL REFERENCES ledger_account,
    amount         bigint NOT NULL CHECK (amount <> 0),
    PRIMARY KEY (transaction_id, account_id)
);
-- An account's entries in the order of their time: balances as of any instant.
CREATE INDEX ledger_entry_account ON ledger_entry (account_id, transaction_id) INCLUDE (amount);

CREATE FUNCTION refuse_unbalanced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_transaction uuid;
    v_sum numeric;
    v_entries bigint;
BEGIN
    IF TG_TABLE_NAME = 'ledger_entry' THEN
        v_transaction := NEW.transaction_id;
    ELSE
        v_transaction := NEW.id;
    END IF;
    SELECT COALESCE(sum(e.amount), 0), count(*) INTO v_sum, v_entries FROM ledger_entry e WHERE e.transaction_id = v_transaction;
    IF v_sum <> 0 OR v_entries < 2 THEN
        RAISE EXCEPTION 'ledger transaction % does not balance: % entries, sum %', v_transaction, v_entries, v_sum
            USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_entry_balanced', TABLE = 'ledger_entry';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER ledger_entry_balanced AFTER INSERT ON ledger_entry DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION refuse_unbalanced();
CREATE CONSTRAINT TRIGGER ledger_transaction_balanced AFTER INSERT ON ledger_transaction DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION refuse_unbalanced();

-- The ledger only grows.
CREATE TRIGGER ledger_account_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_account
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_transaction_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_transaction
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_entry_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What one person has and owes, in VND: the row that is locked by who spends, moved by the entries themselves.
-- An attendant's float is the wallet of kind float.
CREATE TABLE wallet (
    owner   text NOT NULL,
    kind    text NOT NULL CHECK (kind IN ('wallet', 'float')),
    balance bigint NOT NULL DEFAULT 0,
    held    bigint NOT NULL DEFAULT 0 CHECK (held >= 0),
    owed    bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (owner, kind),
    CONSTRAINT wallet_not_overdrawn CHECK (balance >= held)
) WITH (fillfactor = 50);

CREATE FUNCTION open_wallet() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO wallet (owner, kind)
        SELECT DISTINCT o.owner, CASE o.kind WHEN 'float' THEN 'float' ELSE 'wallet' END FROM opened o WHERE o.owner IS NOT NULL
        ORDER BY 1, 2
        ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;
CREATE TRIGGER ledger_account_wallet AFTER INSERT ON ledger_account REFERENCING NEW TABLE AS opened
    FOR EACH STATEMENT EXECUTE FUNCTION open_wallet();

-- Wallets are taken in the order of their owners, so that two groups wait for each other but never in a circle.
CREATE FUNCTION move_wallets() RETURNS trigger LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
BEGIN
    UPDATE wallet w SET balance = w.balance + m.balance, owed = w.owed + m.owed
      FROM (SELECT a.owner, CASE a.kind WHEN 'float' THEN 'float' ELSE 'wallet' END AS kind,
                   COALESCE(-sum(e.amount) FILTER (WHERE a.kind <> 'receivable'), 0) AS balance,
                   COALESCE(sum(e.amount) FILTER (WHERE a.kind = 'receivable'), 0) AS owed
              FROM booked e JOIN ledger_account a ON a.id = e.account_id
             WHERE a.owner IS NOT NULL
             GROUP BY 1, 2 ORDER BY 1, 2) m
     WHERE w.owner = m.owner AND w.kind = m.kind;
    RETURN NULL;
END
$$;
CREATE TRIGGER ledger_entry_wallet AFTER INSERT ON ledger_entry REFERENCING NEW TABLE AS booked
    FOR EACH STATEMENT EXECUTE FUNCTION move_wallets();

-- Wallet money that is put aside when a session starts, and taken or given back when it ends.
CREATE TABLE hold (
    id         uuid PRIMARY KEY,              -- the session's
    owner      text NOT NULL,
    amount     bigint NOT NULL CHECK (amount > 0),
    state      text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'captured', 'released', 'expired')),
    captured   bigint CHECK (captured > 0),
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at   timestamptz,
    CHECK ((state = 'pending') = (ended_at IS NULL)),
    CHECK ((state = 'captured') = (captured IS NOT NULL))
) WITH (fillfactor = 70);
CREATE INDEX hold_pending ON hold (expires_at) WHERE state = 'pending';

-- A movement of money at a gateway, or an attendant's hand.
CREATE TABLE payment (
    id                uuid PRIMARY KEY,
    client            text NOT NULL,
    purpose           text NOT NULL CHECK (purpose IN ('session', 'topup', 'arrears')),
    session_id        uuid CHECK ((purpose = 'session') = (session_id IS NOT NULL)),
    method            text NOT NULL CHECK (method IN ('card', 'vietqr', 'vnpay', 'cash')),
    amount            bigint NOT NULL CHECK (amount > 0),  -- asked for, or held
    paid              bigint CHECK (paid > 0),             -- what came, or was captured
    state             text NOT NULL CHECK (state IN ('created', 'requires_action', 'authorized', 'unknown', 'paid', 'failed',
                                                     'expired', 'void')),
    reference         text NOT NULL UNIQUE,                -- ours: shown to people, and the gateway's idempotency key
    gateway_reference text UNIQUE,
    failure           text,                                -- the gateway's code of a decline
    created_at        timestamptz NOT NULL,
    expires_at        timestamptz,
    settled_at        timestamptz,
    CHECK ((state = 'paid') = (paid IS NOT NULL)),
    CHECK ((state IN ('paid', 'failed', 'expired', 'void')) = (settled_at IS NOT NULL))
);
CREATE INDEX payment_session ON payment (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX payment_client ON payment (client, created_at);
CREATE INDEX payment_open ON payment (method, created_at, id) WHERE state IN ('created', 'requires_action', 'authorized', 'unknown');

-- Value-added tax, in hundredths of a percent, from an instant on. Prices include it.
CREATE TABLE vat_rate (
    valid_from   timestamptz PRIMARY KEY,
    basis_points integer NOT NULL CHECK (basis_points BETWEEN 0 AND 10000),
    source       text NOT NULL CHECK (source IN ('decree', 'assumed'))
);
-- The law's rate, and the National Assembly's reductions by two points. That parking is among what they cover is assumed.
INSERT INTO vat_rate VALUES
    ('2000-01-01 00:00+07', 1000, 'decree'), ('2022-02-01 00:00+07', 800, 'assumed'), ('2023-01-01 00:00+07', 1000, 'decree'),
    ('2023-07-01 00:00+07', 800, 'assumed'), ('2027-01-01 00:00+07', 1000, 'decree');
