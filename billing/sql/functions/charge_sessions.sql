-- Book what sessions owe, in the transaction that ends them: one ledger transaction of kind `parking` for each that owes something.
-- In:  pairwise: the sessions, their clients, payment methods, fees in VND (VAT included) and districts; the instant.
-- A wallet gives what was held for the session and then what is free in it; what it lacks, and what other methods pay, is
-- owed (receivable). A float gives what was held for the session, no more. Holds of these sessions end here, also of those that
-- owe nothing; the cash that an attendant took for more than is charged goes back out of his hand.
-- One session is charged once: a second call books nothing.
CREATE OR REPLACE FUNCTION charge_sessions(
    p_sessions uuid[], p_clients text[], p_methods text[], p_fees bigint[], p_districts text[], p_at timestamptz
) RETURNS integer LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    v_vat integer;
    v_drawn bigint[] := array_fill(0::bigint, ARRAY[cardinality(p_sessions)]);
BEGIN
    PERFORM open_accounts(array_agg(l.code))
       FROM unnest(p_clients, p_fees, p_districts) s(client, fee, district)
      CROSS JOIN LATERAL (VALUES ('receivable/' || s.client), ('revenue/' || s.district || '/iparking'), ('vat')) l(code)
      WHERE s.fee > 0;
    IF p_methods && ARRAY['wallet', 'cash'] THEN
        v_drawn := capture_holds(p_sessions, p_clients, p_methods, p_fees, p_at);
    END IF;
    SELECT v.basis_points INTO STRICT v_vat FROM vat_rate v WHERE v.valid_from <= p_at ORDER BY v.valid_from DESC LIMIT 1;

    PERFORM book_entries(b.kinds, b.ids, b.at, b.nothing, e.of, e.codes, e.amounts)
       FROM (SELECT array_agg('parking'::text) AS kinds, array_agg(s.id::text ORDER BY s.n) AS ids, array_agg(p_at) AS at,
                    array_agg(NULL::uuid) AS nothing
               FROM unnest(p_sessions, p_fees) WITH ORDINALITY s(id, fee, n) WHERE s.fee > 0) b
      CROSS JOIN (
            SELECT array_agg(c.n) AS of, array_agg(l.code) AS codes, array_agg(l.amount) AS amounts
              FROM (SELECT row_number() OVER (ORDER BY s.n) AS n, s.client, s.fee, s.drawn, s.district, purse_of(s.method) AS purse,
                           s.fee - vat_net(s.fee, v_vat) AS vat
                      FROM unnest(p_clients, p_methods, p_fees, v_drawn, p_districts) WITH ORDINALITY
                           s(client, method, fee, drawn, district, n)
                     WHERE s.fee > 0) c
             CROSS JOIN LATERAL (VALUES (c.purse || '/' || c.client, c.drawn), ('receivable/' || c.client, c.fee - c.drawn),
                                        ('revenue/' || c.district || '/iparking', c.vat - c.fee), ('vat', -c.vat)) l(code, amount)
             WHERE l.amount <> 0) e
      WHERE b.ids IS NOT NULL;
    RETURN cardinality(p_sessions);
END
$$;

-- What is left of an amount without its VAT: rounded half up to whole VND; the tax is the rest.
CREATE OR REPLACE FUNCTION vat_net(p_gross bigint, p_basis_points integer) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT (p_gross * 20000 + 10000 + p_basis_points) / (2 * (10000 + p_basis_points))
$$;

-- What a payment method draws on.
CREATE OR REPLACE FUNCTION purse_of(p_method text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE p_method WHEN 'cash' THEN 'float' ELSE 'wallet' END
$$;

-- End the holds of sessions, and say what each draws from its purse. Locks the wallets and floats, in the order of their owners.
-- In:  as for charge_sessions. Out: VND, pairwise with the sessions.
CREATE OR REPLACE FUNCTION capture_holds(
    p_sessions uuid[], p_clients text[], p_methods text[], p_fees bigint[], p_at timestamptz
) RETURNS bigint[] LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    v_wallets wallet[];
    v_holds hold[];
    v_drawn bigint[];
BEGIN
    SELECT array_agg(l.w) INTO v_wallets
      FROM (SELECT w FROM wallet w
             WHERE w.owner = ANY (p_clients) AND w.kind IN ('wallet', 'float') ORDER BY w.owner, w.kind FOR NO KEY UPDATE) l;
    SELECT array_agg(h) INTO v_holds FROM hold h WHERE h.id = ANY (p_sessions) AND h.state = 'pending';

    -- Each session has its own hold; what goes past it comes out of what is free, the first session first.
    SELECT array_agg(d.drawn ORDER BY d.n) INTO v_drawn
      FROM (SELECT m.n, (m.own + GREATEST(
                   LEAST(m.more, m.free - (sum(m.more) OVER (PARTITION BY m.client, m.purse ORDER BY m.n) - m.more)), 0))::bigint AS drawn
              FROM (SELECT s.n, s.client, s.purse, LEAST(s.fee, COALESCE(h.amount, 0)) AS own,
                           CASE s.purse WHEN 'wallet' THEN GREATEST(s.fee - COALESCE(h.amount, 0), 0) ELSE 0 END AS more,
                           COALESCE(w.balance - w.held, 0) + sum(GREATEST(COALESCE(h.amount, 0) - s.fee, 0)) OVER (PARTITION BY s.client, s.purse) AS free
                      FROM (SELECT s.n, s.id, s.client, purse_of(s.method) AS purse,
                                   CASE WHEN s.method IN ('wallet', 'cash') THEN s.fee ELSE 0 END AS fee
                              FROM unnest(p_sessions, p_clients, p_methods, p_fees) WITH ORDINALITY s(id, client, method, fee, n)) s
                      LEFT JOIN unnest(v_holds) h ON h.id = s.id
                      LEFT JOIN unnest(v_wallets) w ON w.owner = s.client AND w.kind = s.purse) m) d;

    UPDATE hold h
       SET state = CASE WHEN s.drawn > 0 THEN 'captured' ELSE 'released' END, captured = NULLIF(s.drawn, 0), ended_at = p_at
      FROM unnest(p_sessions, v_drawn) s(id, drawn) WHERE h.id = s.id AND h.state = 'pending';
    UPDATE wallet w SET held = w.held - f.amount
      FROM (SELECT h.owner, h.kind, sum(h.amount) AS amount FROM unnest(v_holds) h
             GROUP BY h.owner, h.kind ORDER BY h.owner, h.kind) f
     WHERE w.owner = f.owner AND w.kind = f.kind;
    PERFORM move_cash(array_agg(h.id ORDER BY s.n), array_agg(h.owner ORDER BY s.n), array_agg(s.drawn - h.amount ORDER BY s.n),
                      'hand_back', p_at)
       FROM unnest(p_sessions, v_drawn) WITH ORDINALITY s(id, drawn, n) JOIN unnest(v_holds) h USING (id)
      WHERE h.kind = 'float' AND s.drawn < h.amount
     HAVING count(*) > 0;
    RETURN v_drawn;
END
$$;
