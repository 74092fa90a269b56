-- Stop a session, in one transaction and one round trip.
-- In:  its id and start (the id holds it), the client, the stated stopped_at or NULL, now, the stop's idempotency key.
-- Out: one row. outcome is
--      stopped        this call ended it
--      repeated       the key's first answer again
--      conflict       the key was used with another stopped_at
--      unknown        the client has no such session
--      ended          it was stopped before;  expired: its time was over before stopped_at
--      before_start   stopped_at lies before the start
--      unpriced       the stay is longer than what was priced: fee_after and fee_amount must be continued
CREATE OR REPLACE FUNCTION stop_session(
    p_id uuid, p_started_at timestamptz, p_client text, p_stopped_at timestamptz, p_now timestamptz, p_key text
) RETURNS TABLE (
    outcome text, id uuid, client text, zone_code text, plate text, vehicle_class text, started_at timestamptz,
    ends_at timestamptz, ended_at timestamptz, ended_by text, payment_method text, rate_version text, fee bigint,
    version bigint, occupied integer, capacity integer, next_over timestamptz
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    s active_session;
    -- Another process's clock may be a little ahead of ours: never before the start.
    v_ended_at timestamptz := COALESCE(p_stopped_at, GREATEST(p_now, p_started_at));
    v_fee bigint;
    v_outcome text;
BEGIN
    SELECT * INTO s FROM active_session a WHERE a.id = p_id AND a.client = p_client FOR UPDATE;
    IF NOT FOUND THEN
        RETURN QUERY
            SELECT CASE WHEN p.stop_key = p_key AND p.stop_requested_at IS NOT DISTINCT FROM p_stopped_at THEN 'repeated'
                        WHEN p.stop_key = p_key THEN 'conflict'
                        WHEN p.ended_by = 'driver' THEN 'ended'
                        ELSE 'expired' END,
                   p.id, p.client, p.zone_code, p.plate, p.vehicle_class, p.started_at, p.ends_at, p.ended_at, p.ended_by,
                   p.payment_method, p.rate_version, p.fee, NULL::bigint, NULL::integer, NULL::integer, NULL::timestamptz
              FROM parking_session p
             WHERE p.id = p_id AND p.started_at = p_started_at AND p.client = p_client;
        IF NOT FOUND THEN
            v_outcome := 'unknown';
        END IF;
    ELSIF v_ended_at < s.started_at THEN
        v_outcome := 'before_start';
    ELSIF s.admission = 'advisory' AND v_ended_at >= s.over_at THEN
        v_outcome := 'expired';
    ELSE
        v_fee := agreed_fee(s, v_ended_at);
        IF v_fee IS NULL THEN
            v_outcome := 'unpriced';
        ELSE
            RETURN QUERY
                SELECT 'stopped'::text, s.id, s.client, s.zone_code, s.plate, s.vehicle_class, s.started_at, s.ends_at,
                       v_ended_at, 'driver'::text, s.payment_method, s.rate_version, v_fee,
                       c.version, c.occupied, c.capacity, c.next_over
                  FROM close_session(s, v_ended_at, 'driver', p_now, v_fee, p_key, p_stopped_at) c;
        END IF;
    END IF;
    IF v_outcome IS NOT NULL THEN
        RETURN QUERY
            SELECT v_outcome, p_id, s.client, s.zone_code, s.plate, s.vehicle_class, s.started_at, s.ends_at,
                   NULL::timestamptz, NULL::text, s.payment_method, s.rate_version, NULL::bigint,
                   NULL::bigint, NULL::integer, NULL::integer, NULL::timestamptz;
    END IF;
END
$$;
