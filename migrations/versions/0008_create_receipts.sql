-- Receipts, numbered without a gap by year and district, and their e-invoices.
-- Down: drop everything listed here, in reverse order (the law wants invoices kept for ten years).

-- The last number of each series. Who takes the next ones locks the row until they are committed: no gap, no number twice.
CREATE TABLE number_series (
    name    text NOT NULL CHECK (name <> ''),     -- receipt/<district>, or einvoice: the seller's own count of all
    year    integer NOT NULL CHECK (year BETWEEN 2000 AND 2099),
    last    bigint NOT NULL DEFAULT 0 CHECK (last >= 0),
    last_at timestamptz NOT NULL,                 -- no later number is issued before this instant
    PRIMARY KEY (name, year)
);

-- One for each charge (kind receipt) and for each time that money was given back (credit_note).
CREATE TABLE receipt (
    id         uuid PRIMARY KEY REFERENCES ledger_transaction,  -- the charge's, or the refund's
    kind       text NOT NULL CHECK (kind IN ('receipt', 'credit_note')),
    district   text NOT NULL CHECK (district <> ''),
    year       integer NOT NULL,                                -- Hanoi's, of issued_at
    number     bigint NOT NULL CHECK (number BETWEEN 1 AND 99999999),
    client     text NOT NULL,
    session_id uuid NOT NULL,
    corrects   uuid REFERENCES receipt,
    charged_at timestamptz NOT NULL,
    issued_at  timestamptz NOT NULL,
    amount     bigint NOT NULL,                                 -- VND, VAT included; a credit note's is below 0
    vat        bigint NOT NULL,
    content    json NOT NULL,                                   -- all else that it says, as of then
    UNIQUE (district, year, number),
    CHECK ((kind = 'credit_note') = (corrects IS NOT NULL)),
    CHECK (CASE kind WHEN 'receipt' THEN amount > 0 AND vat >= 0 ELSE amount < 0 AND vat <= 0 END)
);
CREATE UNIQUE INDEX receipt_session ON receipt (session_id) WHERE kind = 'receipt';
CREATE INDEX receipt_client ON receipt (client, id);
CREATE INDEX receipt_corrects ON receipt (corrects) WHERE corrects IS NOT NULL;
CREATE TRIGGER receipt_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON receipt
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- An e-invoice (Decree 123/2020, amended by 70/2025) on its way to the tax authority.
CREATE TABLE einvoice (
    id            uuid PRIMARY KEY REFERENCES receipt,          -- and what the provider knows it by
    sign          text NOT NULL,                                -- form and series: 1C26MAC
    number        bigint NOT NULL,                              -- the receipt's
    code_number   bigint NOT NULL,                              -- the last part of the authority's code, of the year
    year          integer NOT NULL,
    state         text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent', 'accepted', 'rejected')),
    document      text,                                         -- as sent; frozen before the first try
    tries         integer NOT NULL DEFAULT 0 CHECK (tries >= 0),
    next_try_at   timestamptz,                                  -- while it is pending or sent
    last_error    text,
    provider_reference text,
    settled_at    timestamptz,
    UNIQUE (sign, number),
    UNIQUE (year, code_number),
    CHECK ((state = 'pending') = (document IS NULL)),
    CHECK ((state IN ('pending', 'sent')) = (next_try_at IS NOT NULL)),
    CHECK ((state IN ('accepted', 'rejected')) = (settled_at IS NOT NULL)),
    CHECK ((state = 'accepted') = (provider_reference IS NOT NULL))
) WITH (fillfactor = 70);
CREATE INDEX einvoice_open ON einvoice (next_try_at) WHERE state IN ('pending', 'sent');
CREATE INDEX einvoice_rejected ON einvoice (settled_at) WHERE state = 'rejected';

-- What was sent is sent again as it was; what was accepted stays; what was rejected may be made anew.
CREATE FUNCTION refuse_einvoice_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.sign, NEW.number, NEW.code_number, NEW.year) IS DISTINCT FROM
       (OLD.id, OLD.sign, OLD.number, OLD.code_number, OLD.year)
       OR (OLD.state, NEW.state) NOT IN (('pending', 'sent'), ('sent', 'sent'), ('sent', 'accepted'), ('sent', 'rejected'),
                                         ('rejected', 'pending'))
       OR (OLD.state = 'sent' AND NEW.document IS DISTINCT FROM OLD.document) THEN
        RAISE EXCEPTION 'e-invoice % cannot go from % to %', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'einvoice_transition', TABLE = 'einvoice';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER einvoice_transition BEFORE UPDATE ON einvoice FOR EACH ROW EXECUTE FUNCTION refuse_einvoice_change();
CREATE TRIGGER einvoice_kept BEFORE DELETE OR TRUNCATE ON einvoice FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- How far the job has come: every charge up to here has its receipt. At most one row.
CREATE TABLE receipt_progress (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    id       uuid NOT NULL
);