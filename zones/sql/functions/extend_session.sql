-- Add prepaid minutes to a running session.
-- Out: extended, unknown, ended, expired (by p_now, or its place was given back by somebody else's now), not_prepaid (it runs until it is stopped) or max_stay_exceeded.
CREATE OR REPLACE FUNCTION extend_session(
    p_id uuid, p_started_at timestamptz, p_client text, p_minutes integer, p_now timestamptz
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    s active_session;
    v_ended_by text;
    v_ends_at timestamptz;
BEGIN
    -- IS NOT DISTINCT FROM: found by its id, never by its client (see stop_sessions).
    SELECT * INTO s FROM active_session a WHERE a.id = p_id AND a.client IS NOT DISTINCT FROM p_client FOR UPDATE;
    IF NOT FOUND THEN
        SELECT p.ended_by INTO v_ended_by FROM parking_session p
         WHERE p.id = p_id AND p.started_at = p_started_at AND p.client IS NOT DISTINCT FROM p_client;
        RETURN CASE WHEN NOT FOUND THEN 'unknown' WHEN v_ended_by = 'driver' THEN 'ended' ELSE 'expired' END;
    ELSIF s.over_at <= p_now OR NOT s.counted THEN
        RETURN 'expired';
    ELSIF s.ends_at IS NULL THEN
        RETURN 'not_prepaid';
    END IF;
    v_ends_at := s.ends_at + make_interval(mins => p_minutes);
    IF v_ends_at > s.max_over_at THEN
        RETURN 'max_stay_exceeded';
    END IF;
    -- The zone's next_over may now be too early: that costs one look at PostgreSQL, never a wrong count.
    UPDATE active_session a SET ends_at = v_ends_at, over_at = v_ends_at WHERE a.id = p_id;
    RETURN 'extended';
END
$$;
