-- Put more aside for a running session. The wallet is locked before the hold, as by everybody.
-- In:  the session, and how many VND are to be held for it in all; a hold that is over, or that large already, stays.
-- Fails with the constraint wallet_not_overdrawn where the wallet lacks it.
CREATE OR REPLACE FUNCTION raise_hold(p_session uuid, p_amount bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_owner text;
    v_kind text;
    v_more bigint;
BEGIN
    SELECT w.owner, w.kind INTO v_owner, v_kind FROM hold h JOIN wallet w ON w.owner = h.owner AND w.kind = h.kind
     WHERE h.id = p_session FOR NO KEY UPDATE OF w;
    SELECT p_amount - h.amount INTO v_more FROM hold h
     WHERE h.id = p_session AND h.state = 'pending' AND h.amount < p_amount;
    IF FOUND THEN
        UPDATE wallet w SET held = w.held + v_more WHERE w.owner = v_owner AND w.kind = v_kind;
        UPDATE hold h SET amount = p_amount WHERE h.id = p_session;
    END IF;
END
$$;
