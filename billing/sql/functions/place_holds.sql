-- Put money aside for sessions that start, and refuse who owes more than the limit. In the start's own transaction.
-- In:  pairwise: the sessions, their clients, the VND to hold (0: another method pays later); the instant, until when each hold
--      stands at most, and how much a client may owe; the purse: wallet, or float where attendants take the price in cash (which
--      is noted in their shifts; what others left unpaid with them stops nobody).
-- Fails as a whole, with the constraint named wallet_covers_hold, float_covers_hold, owed_within_limit or shift_is_open, where
-- one cannot pay. But for shift_is_open, the error's detail is a JSON object of the sessions that are to be left out: the
-- constraint that each breaks whatever the others do; null where only it and others of its client together are too much.
CREATE OR REPLACE FUNCTION place_holds(
    p_sessions uuid[], p_clients text[], p_amounts bigint[], p_expires_at timestamptz[], p_at timestamptz, p_owed_limit bigint,
    p_purse text
) RETURNS integer LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    v_wanted integer;
    v_covered text[];
    v_left_out json;
    v_owes boolean;
BEGIN
    IF p_purse = 'float' AND 0 < ANY (p_amounts) THEN
        PERFORM move_cash(p_sessions, p_clients, p_amounts, 'start', p_at);
    END IF;
    -- One statement for those who can pay: this is on the path of every start.
    WITH wanted AS MATERIALIZED (
        SELECT s.client, sum(s.amount) AS amount FROM unnest(p_clients, p_amounts) s(client, amount)
         WHERE s.amount > 0 GROUP BY s.client ORDER BY s.client
    ), covered AS (
        UPDATE wallet w SET held = w.held + s.amount FROM wanted s
         WHERE w.owner = s.client AND w.kind = p_purse AND w.balance - w.held >= s.amount
           AND (p_purse <> 'wallet' OR w.owed <= p_owed_limit)
        RETURNING w.owner
    ), placed AS (
        INSERT INTO hold (id, owner, kind, amount, created_at, expires_at)
            SELECT s.id, s.client, p_purse, s.amount, p_at, s.expires_at
              FROM unnest(p_sessions, p_clients, p_amounts, p_expires_at) s(id, client, amount, expires_at)
             WHERE s.amount > 0
    )
    SELECT (SELECT count(*) FROM wanted), (SELECT COALESCE(array_agg(owner), '{}') FROM covered) INTO v_wanted, v_covered;

    IF cardinality(v_covered) < v_wanted OR (p_purse = 'wallet' AND 0 = ANY (p_amounts)) THEN
        SELECT json_object_agg(r.id, r.breaks), bool_or(r.breaks = 'owed_within_limit') INTO v_left_out, v_owes
          FROM (SELECT s.id, CASE WHEN p_purse = 'wallet' AND w.owed > p_owed_limit THEN 'owed_within_limit'
                                  WHEN s.amount > COALESCE(w.balance - w.held, 0) THEN p_purse || '_covers_hold' END AS breaks
                  FROM unnest(p_sessions, p_clients, p_amounts) s(id, client, amount)
                  LEFT JOIN wallet w ON w.owner = s.client AND w.kind = p_purse
                 WHERE (p_purse = 'wallet' AND w.owed > p_owed_limit) OR (s.amount > 0 AND s.client <> ALL (v_covered))) r;
        IF v_owes THEN
            RAISE EXCEPTION 'a client owes more than %', p_owed_limit
                USING ERRCODE = 'check_violation', CONSTRAINT = 'owed_within_limit', TABLE = 'wallet', DETAIL = v_left_out::text;
        ELSIF v_left_out IS NOT NULL THEN
            RAISE EXCEPTION 'a % does not cover its hold', p_purse
                USING ERRCODE = 'check_violation', CONSTRAINT = p_purse || '_covers_hold', TABLE = 'wallet',
                      DETAIL = v_left_out::text;
        END IF;
    END IF;
    RETURN cardinality(v_covered);
END
$$;
