-- The check that an idempotency key made, and is remembered for: received after p_since.
-- Out: no row, or one with outcome repeated (the request was the same) or conflict.
CREATE OR REPLACE FUNCTION check_with_key(p_client text, p_key text, p_hash bytea, p_since timestamptz) RETURNS TABLE (
    outcome text, id uuid, plate text, vehicle_class text, verdict text, reasons text[], zone_code text, session_id uuid,
    expired_for_seconds integer, near_plates text[], captured_at timestamptz
) LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN c.request_hash = p_hash THEN 'repeated' ELSE 'conflict' END, c.id, c.plate, c.vehicle_class, c.verdict,
           c.reasons, c.zone_code, c.session_id, c.expired_for_seconds, c.near_plates, c.captured_at
      FROM parking_check c
     WHERE c.client = p_client AND c.idempotency_key = p_key AND c.received_at > p_since
$$;
