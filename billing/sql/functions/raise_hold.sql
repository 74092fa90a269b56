-- Put more aside for a running session. The wallet is locked before the hold, as by everybody.
-- In:  the session, its client, and how many VND are to be held for it in all; a hold that is over, or that large already, stays.
--      For a session that began free, and has no hold yet: until when it stands at most, the instant, and how much may be owed.
-- Fails with the constraint wallet_not_overdrawn where the wallet lacks it; a first hold as place_holds does.
CREATE OR REPLACE FUNCTION raise_hold(
    p_session uuid, p_client text, p_amount bigint, p_expires_at timestamptz, p_at timestamptz, p_owed_limit bigint
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_owner text;
    v_kind text;
    v_more bigint;
BEGIN
    SELECT w.owner, w.kind INTO v_owner, v_kind FROM hold h JOIN wallet w ON w.owner = h.owner AND w.kind = h.kind
     WHERE h.id = p_session FOR NO KEY UPDATE OF w;
    IF NOT FOUND THEN
        PERFORM place_holds(ARRAY[p_session], ARRAY[p_client], ARRAY[p_amount], ARRAY[p_expires_at], p_at, p_owed_limit, 'wallet');
        RETURN;
    END IF;
    SELECT p_amount - h.amount INTO v_more FROM hold h
     WHERE h.id = p_session AND h.state = 'pending' AND h.amount < p_amount;
    IF FOUND THEN
        UPDATE wallet w SET held = w.held + v_more WHERE w.owner = v_owner AND w.kind = v_kind;
        UPDATE hold h SET amount = p_amount WHERE h.id = p_session;
    END IF;
END
$$;
