-- The finished session of the last 24 hours that an idempotency key made.
-- Out: no row, or one with outcome repeated (the body was the same) or conflict.
CREATE OR REPLACE FUNCTION ended_with_key(
    p_client text, p_key text, p_plate text, p_class text, p_zone text, p_now timestamptz, p_minutes integer, p_method text
) RETURNS TABLE (outcome text, id uuid, started_at timestamptz, rate_version text) LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN (s.plate, s.vehicle_class, s.zone_code, s.payment_method) = (p_plate, p_class, p_zone, p_method)
                 AND s.minutes IS NOT DISTINCT FROM p_minutes
                THEN 'repeated' ELSE 'conflict' END,
           s.id, s.started_at, s.rate_version
      FROM parking_session s
     WHERE s.client = p_client AND s.idempotency_key = p_key AND s.started_at > p_now - interval '24 hours'
     ORDER BY s.started_at DESC
     LIMIT 1
$$;
