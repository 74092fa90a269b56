-- Why a start found a row in its way: its own key first (running, then ended), then the plate.
-- Out: one row, outcome as in start_session; 'again' where what stood in the way is gone by now.
CREATE OR REPLACE FUNCTION explain_start(
    p_plate text, p_class text, p_client text, p_key text, p_zone text, p_now timestamptz, p_minutes integer, p_method text
) RETURNS TABLE (outcome text, id uuid, started_at timestamptz, rate_version text) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    IF p_key IS NOT NULL THEN
        RETURN QUERY
            SELECT CASE WHEN (s.plate, s.vehicle_class, s.zone_code, s.payment_method) = (p_plate, p_class, p_zone, p_method)
                         AND s.minutes IS NOT DISTINCT FROM p_minutes
                        THEN 'repeated' ELSE 'conflict' END,
                   s.id, s.started_at, s.rate_version
              FROM active_session s WHERE s.client = p_client AND s.idempotency_key = p_key;
        IF FOUND THEN RETURN; END IF;
        RETURN QUERY
            SELECT * FROM ended_with_key(p_client, p_key, p_plate, p_class, p_zone, p_now, p_minutes, p_method);
        IF FOUND THEN RETURN; END IF;
    END IF;

    RETURN QUERY
        SELECT CASE WHEN s.over_at <= p_now THEN 'over' ELSE 'already_parked' END, s.id, s.started_at, s.rate_version
          FROM active_session s WHERE s.plate = p_plate AND s.vehicle_class = p_class;
    IF FOUND THEN RETURN; END IF;

    RETURN QUERY
        SELECT COALESCE((SELECT CASE WHEN z.capacity = 0 THEN 'not_served' ELSE 'again' END
                           FROM zone_occupancy z WHERE z.zone_code = p_zone AND z.vehicle_class = p_class),
                        'unknown_zone'),
               NULL::uuid, NULL::timestamptz, NULL::text;
END
$$;
