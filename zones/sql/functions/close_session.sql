-- Move one active session to the past and give its place back. The caller holds the row's lock.
-- In:  the row, when and by what it ended, when that was received, the fee, and the stop's own key and stopped_at.
-- Out: the zone's count after it (unchanged where the place was given back before).
CREATE OR REPLACE FUNCTION close_session(
    s active_session, p_ended_at timestamptz, p_ended_by text, p_received_at timestamptz, p_fee bigint,
    p_stop_key text, p_stop_requested_at timestamptz
) RETURNS TABLE (version bigint, occupied integer, capacity integer, next_over timestamptz) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    DELETE FROM active_session a WHERE a.plate = s.plate AND a.vehicle_class = s.vehicle_class;
    INSERT INTO parking_session (
        id, plate, vehicle_class, client, idempotency_key, zone_code, admission, started_at, minutes, ends_at,
        over_at, ended_at, ended_by, received_at, payment_method, rate_version, fee, stop_key, stop_requested_at)
    VALUES (s.id, s.plate, s.vehicle_class, s.client, s.idempotency_key, s.zone_code, s.admission, s.started_at, s.minutes,
            s.ends_at, s.over_at, p_ended_at, p_ended_by, p_received_at, s.payment_method, s.rate_version, p_fee, p_stop_key,
            p_stop_requested_at);
    IF s.counted THEN
        RETURN QUERY
            UPDATE zone_occupancy z SET occupied = z.occupied - 1, version = z.version + 1
             WHERE z.zone_code = s.zone_code AND z.vehicle_class = s.vehicle_class
            RETURNING z.version, z.occupied, z.capacity, z.next_over;
    ELSE
        RETURN QUERY SELECT z.version, z.occupied, z.capacity, z.next_over FROM zone_occupancy z
                      WHERE z.zone_code = s.zone_code AND z.vehicle_class = s.vehicle_class;
    END IF;
END
$$;
