-- Give back what was put aside in wallets for longer than any session may last; a float's holds stay, the cash was taken. Wallets are locked before holds, as by everybody; one
-- that somebody uses at the moment is left for the next time.
-- In:  the instant, and how many wallets at most. Out: the number of holds.
CREATE OR REPLACE FUNCTION expire_holds(p_at timestamptz, p_most bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_owners text[];
    v_expired bigint;
BEGIN
    SELECT array_agg(l.owner) INTO v_owners
      FROM (SELECT w.owner FROM wallet w
             WHERE w.kind = 'wallet'
               AND w.owner IN (SELECT h.owner FROM hold h WHERE h.state = 'pending' AND h.kind = 'wallet' AND h.expires_at <= p_at)
             ORDER BY w.owner LIMIT p_most FOR NO KEY UPDATE SKIP LOCKED) l;
    WITH ended AS (
        UPDATE hold h SET state = 'expired', ended_at = p_at
         WHERE h.state = 'pending' AND h.kind = 'wallet' AND h.expires_at <= p_at AND h.owner = ANY (v_owners)
        RETURNING h.owner, h.amount
    ), freed AS (
        UPDATE wallet w SET held = w.held - e.amount
          FROM (SELECT ended.owner, sum(ended.amount) AS amount FROM ended GROUP BY ended.owner) e
         WHERE w.owner = e.owner AND w.kind = 'wallet'
    )
    SELECT count(*) INTO v_expired FROM ended;
    RETURN v_expired;
END
$$;
