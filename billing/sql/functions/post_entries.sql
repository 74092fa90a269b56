-- Book transactions: the one way into the ledger. Accounts that are named for the first time are opened.
-- In:  pairwise: kind, reference, instant and what each transaction reverses (NULL); pairwise: of which transaction (its
--      position, from 1) each entry is, its account's code and amount (VND; debit positive, credit negative).
-- Out: the position and id of each transaction that is booked now; one whose kind and reference were booked before is left
--      out, and so is a second reversal of the same.
-- Everybody locks accounts first, then wallets (each in order), then transactions: nobody waits in a circle.
CREATE OR REPLACE FUNCTION post_entries(
    p_kinds text[], p_references text[], p_at timestamptz[], p_reverses uuid[], p_of bigint[], p_codes text[], p_amounts bigint[]
) RETURNS TABLE ("position" bigint, id uuid) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
    PERFORM open_accounts(p_codes);
    PERFORM FROM wallet w
      JOIN (SELECT DISTINCT a.owner, CASE a.kind WHEN 'float' THEN 'float' ELSE 'wallet' END AS kind
              FROM ledger_account a WHERE a.code = ANY (p_codes) AND a.owner IS NOT NULL) o
        ON w.owner = o.owner AND w.kind = o.kind
     ORDER BY w.owner, w.kind FOR NO KEY UPDATE OF w;
    RETURN QUERY
        WITH wanted AS MATERIALIZED (
            SELECT t.n, uuid_of(t.at) AS id, t.kind, t.reference, t.at, t.reverses
              FROM unnest(p_kinds, p_references, p_at, p_reverses) WITH ORDINALITY t(kind, reference, at, reverses, n)
        ), booked AS MATERIALIZED (
            INSERT INTO ledger_transaction (id, kind, reference, at, reverses)
                SELECT w.id, w.kind, w.reference, w.at, w.reverses FROM wanted w ORDER BY w.kind, w.reference
                ON CONFLICT DO NOTHING
                RETURNING id
        ), entered AS (
            INSERT INTO ledger_entry (transaction_id, account_id, amount)
                SELECT w.id, a.id, e.amount
                  FROM booked b JOIN wanted w USING (id)
                  JOIN unnest(p_of, p_codes, p_amounts) e(n, code, amount) ON e.n = w.n
                  JOIN ledger_account a ON a.code = e.code
        )
        SELECT w.n, w.id FROM booked b JOIN wanted w USING (id);
END
$$;

-- Open the accounts of these codes that are not open yet.
CREATE OR REPLACE FUNCTION open_accounts(p_codes text[]) RETURNS void LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
BEGIN
    IF EXISTS (SELECT FROM unnest(p_codes) c(code) WHERE NOT EXISTS (SELECT FROM ledger_account a WHERE a.code = c.code)) THEN
        INSERT INTO ledger_account (code)
            SELECT DISTINCT c.code FROM unnest(p_codes) c(code)
             WHERE NOT EXISTS (SELECT FROM ledger_account a WHERE a.code = c.code)
             ORDER BY c.code
            ON CONFLICT DO NOTHING;
    END IF;
END
$$;

-- A UUIDv7 (RFC 9562, 5.7) of an instant: its milliseconds, then random bits around version and variant.
CREATE OR REPLACE FUNCTION uuid_of(p_at timestamptz) RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
               PLACING substring(int8send((extract(epoch FROM p_at) * 1000)::bigint) FROM 3) FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid
$$;
