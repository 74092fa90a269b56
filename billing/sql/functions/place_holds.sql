-- Put money aside for sessions that start, and refuse who owes more than the limit. In the start's own transaction.
-- In:  pairwise: the sessions, their clients, the VND to hold (0: another method pays later); the instant, until when each hold
--      stands at most, and how much a client may owe; the purse: wallet, or float where attendants take the price in cash (which
--      is noted in their shifts; what others left unpaid with them stops nobody).
-- Fails as a whole, with the constraint named wallet_covers_hold, float_covers_hold, owed_within_limit or shift_is_open, where
-- one cannot pay: the caller then tries each by itself.
CREATE OR REPLACE FUNCTION place_holds(
    p_sessions uuid[], p_clients text[], p_amounts bigint[], p_expires_at timestamptz[], p_at timestamptz, p_owed_limit bigint,
    p_purse text
) RETURNS integer LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    v_wanted integer;
    v_covered integer;
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
    SELECT (SELECT count(*) FROM wanted), (SELECT count(*) FROM covered) INTO v_wanted, v_covered;

    IF p_purse = 'wallet' AND (v_covered < v_wanted OR 0 = ANY (p_amounts)) THEN
        IF EXISTS (SELECT FROM unnest(p_clients) c(client) JOIN wallet w ON w.owner = c.client AND w.kind = 'wallet'
                    WHERE w.owed > p_owed_limit) THEN
            RAISE EXCEPTION 'a client owes more than %', p_owed_limit
                USING ERRCODE = 'check_violation', CONSTRAINT = 'owed_within_limit', TABLE = 'wallet';
        END IF;
    END IF;
    IF v_covered < v_wanted THEN
        RAISE EXCEPTION 'a % does not cover its hold', p_purse
            USING ERRCODE = 'check_violation', CONSTRAINT = p_purse || '_covers_hold', TABLE = 'wallet';
    END IF;
    RETURN v_covered;
END
$$;
