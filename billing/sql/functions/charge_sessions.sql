-- Book what sessions owe, in the transaction that ends them: one ledger transaction of kind `parking` for each that owes something.
-- In:  pairwise: the sessions, their clients, payment methods, fees in VND (VAT included) and districts; the instant.
-- A wallet gives what was held for the session and then what is free in it; what it lacks, and what other methods pay, is
-- owed (receivable). A float gives what was held for the session, no more. Holds of these sessions end here, also of those that
-- owe nothing; the cash that an attendant took for more than is charged goes back out of his hand.
-- What is owed by card for a session of which no payment is known (it began free, so that nothing was held) gets one here, void as
-- that of a hold that was given up: by its payment a debt is known to be collected from a card.
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
    IF 'card' = ANY (p_methods) THEN
        INSERT INTO payment (id, client, purpose, session_id, method, amount, state, reference, created_at, settled_at)
            SELECT s.id, s.client, 'session', s.id, 'card', s.fee, 'void', s.id::text, p_at, p_at
              FROM unnest(p_sessions, p_clients, p_methods, p_fees) s(id, client, method, fee)
             WHERE s.method = 'card' AND s.fee > 0
                   -- ON CONFLICT would wait for who notes what became of the hold, and may wait for this session.
               AND NOT EXISTS (SELECT FROM payment p WHERE p.id = s.id);
    END IF;
    SELECT v.basis_points INTO STRICT v_vat FROM vat_rate v WHERE v.valid_from <= p_at ORDER BY v.valid_from DESC LIMIT 1;

    -- As post_entries does, without its arrays: this is on the path of every stop, in one statement.
    WITH charge AS MATERIALIZED (
        SELECT uuid_of(p_at) AS id, s.id::text AS reference, s.client, s.fee, s.drawn, s.district, purse_of(s.method) AS purse,
               s.fee - vat_net(s.fee, v_vat) AS vat
          FROM unnest(p_sessions, p_clients, p_methods, p_fees, v_drawn, p_districts) s(id, client, method, fee, drawn, district)
         WHERE s.fee > 0
    ), booked AS (
        INSERT INTO ledger_transaction (id, kind, reference, at)
            SELECT c.id, 'parking', c.reference, p_at FROM charge c ORDER BY c.reference
            ON CONFLICT DO NOTHING
            RETURNING id
    )
    INSERT INTO ledger_entry (transaction_id, account_id, amount)
        SELECT c.id, a.id, l.amount
          FROM booked b
          JOIN charge c USING (id)
         CROSS JOIN LATERAL (VALUES (c.purse || '/' || c.client, c.drawn), ('receivable/' || c.client, c.fee - c.drawn),
                                    ('revenue/' || c.district || '/iparking', c.vat - c.fee), ('vat', -c.vat)) l(code, amount)
          JOIN ledger_account a ON a.code = l.code
         WHERE l.amount <> 0;
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
DECLARE
    v_drawn bigint[];
    v_lack boolean;     -- whether a wallet is to give more than was held
    v_sessions uuid[];  -- those for which cash goes back, with the attendants and how much
    v_attendants text[];
    v_amounts bigint[];
BEGIN
    -- A statement of its own: the next one sees what whoever held the locks has left.
    PERFORM FROM wallet w
      WHERE w.owner = ANY (p_clients) AND w.kind IN ('wallet', 'float') ORDER BY w.owner, w.kind FOR NO KEY UPDATE;

    -- By `= ANY`, which is looked up in whatever order the planner joins: a plan that was made on an empty table would read all.
    WITH ended AS (
        UPDATE hold h
           SET state = CASE WHEN s.fee > 0 THEN 'captured' ELSE 'released' END, captured = NULLIF(LEAST(s.fee, h.amount), 0),
               ended_at = p_at
          FROM (SELECT s.id, CASE WHEN s.method IN ('wallet', 'cash') THEN s.fee ELSE 0 END AS fee
                  FROM unnest(p_sessions, p_methods, p_fees) s(id, method, fee)) s
         WHERE h.id = s.id AND h.id = ANY (p_sessions) AND h.ended_at IS NULL
        RETURNING h.id, h.owner, h.kind, h.amount, COALESCE(h.captured, 0) AS captured
    ), freed AS (
        UPDATE wallet w SET held = w.held - f.amount
          FROM (SELECT e.owner, e.kind, sum(e.amount) AS amount FROM ended e GROUP BY e.owner, e.kind ORDER BY e.owner, e.kind) f
         WHERE w.owner = f.owner AND w.kind = f.kind
    )
    SELECT array_agg(COALESCE(e.captured, 0) ORDER BY s.n), bool_or(s.method = 'wallet' AND s.fee > COALESCE(e.captured, 0)),
           array_agg(e.id ORDER BY s.n) FILTER (WHERE e.kind = 'float' AND e.captured < e.amount),
           array_agg(e.owner ORDER BY s.n) FILTER (WHERE e.kind = 'float' AND e.captured < e.amount),
           array_agg(e.captured - e.amount ORDER BY s.n) FILTER (WHERE e.kind = 'float' AND e.captured < e.amount)
      INTO v_drawn, v_lack, v_sessions, v_attendants, v_amounts
      FROM unnest(p_sessions, p_methods, p_fees) WITH ORDINALITY s(id, method, fee, n) LEFT JOIN ended e USING (id);

    IF v_lack THEN
        -- What goes past the holds comes out of what is free now that they are over, the first session first.
        WITH more AS MATERIALIZED (
            SELECT s.n, s.id, s.drawn,
                   GREATEST(LEAST(s.fee - s.drawn, w.balance - w.held - sum(s.drawn) OVER (PARTITION BY s.client)
                       - (sum(s.fee - s.drawn) OVER (PARTITION BY s.client ORDER BY s.n) - (s.fee - s.drawn))), 0)::bigint AS amount
              FROM unnest(p_sessions, p_clients, p_methods, p_fees, v_drawn) WITH ORDINALITY s(id, client, method, fee, drawn, n)
              JOIN wallet w ON w.owner = s.client AND w.owner = ANY (p_clients) AND w.kind = 'wallet'
             WHERE s.method = 'wallet'
        ), captured AS (
            UPDATE hold h SET captured = m.drawn + m.amount FROM more m WHERE h.id = m.id AND m.drawn > 0 AND m.amount > 0
        )
        SELECT array_agg(d.drawn + COALESCE(m.amount, 0) ORDER BY d.n) INTO v_drawn
          FROM unnest(v_drawn) WITH ORDINALITY d(drawn, n) LEFT JOIN more m USING (n);
    END IF;
    IF v_sessions IS NOT NULL THEN
        PERFORM move_cash(v_sessions, v_attendants, v_amounts, 'hand_back', p_at);
    END IF;
    RETURN v_drawn;
END
$$;
