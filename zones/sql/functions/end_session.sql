-- Close a session whose time is over, without its driver: at over_at where admission is advisory, at p_now where it is
-- strict (the car stood there until it was seen elsewhere). Idempotent: a session that is gone gives no row.
-- In:  its id, now, and why (expiry: the tidy job; restart: the same plate starts anew).
-- Out: the session as stop_session gives it; outcome is closed, or unpriced.
CREATE OR REPLACE FUNCTION end_session(p_id uuid, p_now timestamptz, p_ended_by text) RETURNS TABLE (
    outcome text, id uuid, client text, zone_code text, plate text, vehicle_class text, started_at timestamptz,
    ends_at timestamptz, ended_at timestamptz, ended_by text, payment_method text, rate_version text, fee bigint,
    version bigint, occupied integer, capacity integer, next_over timestamptz
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    s active_session;
    v_ended_at timestamptz;
    v_fee bigint;
BEGIN
    SELECT * INTO s FROM active_session a WHERE a.id = p_id AND a.over_at <= p_now FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    v_ended_at := CASE WHEN s.admission = 'advisory' THEN s.over_at ELSE p_now END;
    v_fee := agreed_fee(s, v_ended_at);
    IF v_fee IS NULL THEN
        RETURN QUERY SELECT 'unpriced'::text, s.id, s.client, s.zone_code, s.plate, s.vehicle_class, s.started_at, s.ends_at,
                            v_ended_at, p_ended_by, s.payment_method, s.rate_version, v_fee,
                            NULL::bigint, NULL::integer, NULL::integer, NULL::timestamptz;
        RETURN;
    END IF;
    RETURN QUERY
        SELECT 'closed'::text, s.id, s.client, s.zone_code, s.plate, s.vehicle_class, s.started_at, s.ends_at,
               v_ended_at, p_ended_by, s.payment_method, s.rate_version, v_fee,
               c.version, c.occupied, c.capacity, c.next_over
          FROM close_session(s, v_ended_at, p_ended_by, p_now, v_fee, NULL, NULL) c;
END
$$;
