-- The row of parking_session that an active session becomes when it ends. Its fee is the agreed one, or NULL (agreed_fee).
-- One row, as a set: so the planner takes it into the query that asks, which a function that returns a row is not.
-- In:  the session, when and by what it ended, when that was received, the stop's own key and stopped_at.
CREATE OR REPLACE FUNCTION over_session(
    s active_session, p_ended_at timestamptz, p_ended_by text, p_received_at timestamptz, p_stop_key text,
    p_stop_requested_at timestamptz
) RETURNS SETOF parking_session LANGUAGE sql IMMUTABLE AS $$
    SELECT
        s.id, s.plate, s.vehicle_class, s.client, s.idempotency_key, s.zone_code, s.admission, s.started_at, s.minutes, s.ends_at,
        s.over_at, p_ended_at, p_ended_by, p_received_at, s.payment_method, s.rate_version, agreed_fee(s, p_ended_at), p_stop_key,
        p_stop_requested_at
$$;
