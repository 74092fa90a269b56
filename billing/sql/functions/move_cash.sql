-- Note cash that moves in attendants' hands, each in his open shift, which stays open until the caller's transaction ends.
-- In:  pairwise: the sessions it is for, the attendants, VND (above 0: taken, below: given back); what it is, and the instant.
-- Fails, with the constraint named shift_is_open, where an attendant has no open shift.
CREATE OR REPLACE FUNCTION move_cash(
    p_sessions uuid[], p_attendants text[], p_amounts bigint[], p_kind text, p_at timestamptz
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_shifts shift[];
BEGIN
    SELECT array_agg(l.s) INTO v_shifts
      FROM (SELECT s FROM shift s WHERE s.attendant = ANY (p_attendants) AND s.closed_at IS NULL
             ORDER BY s.attendant FOR SHARE) l;
    IF COALESCE(cardinality(v_shifts), 0) < (SELECT count(DISTINCT a.attendant) FROM unnest(p_attendants) a(attendant)) THEN
        RAISE EXCEPTION 'an attendant has no open shift'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'shift_is_open', TABLE = 'shift';
    END IF;
    INSERT INTO cash_movement (shift_id, kind, session_id, amount, at)
        SELECT s.id, p_kind, m.session_id, m.amount, p_at
          FROM unnest(p_sessions, p_attendants, p_amounts) WITH ORDINALITY m(session_id, attendant, amount, n)
          JOIN unnest(v_shifts) s USING (attendant)
         WHERE m.amount <> 0
         ORDER BY m.n;
END
$$;
