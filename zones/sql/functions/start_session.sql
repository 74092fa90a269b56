-- Admit a vehicle, in one transaction and one round trip.
-- In:  the session as it would be (p_id is a UUIDv7 of p_started_at), the client and its idempotency key or NULL.
-- Out: one row. outcome is
--      started        the session runs; version, occupied, capacity, next_over are the zone's count after it
--      repeated       the key's first answer: id, started_at, rate_version are those of the session it made
--      conflict       the key was used with another body
--      already_parked another session of this plate and class runs
--      over           such a session is past its time and must be closed first: id
--      unknown_zone   the zone keeps no count for this class
--      A full zone raises IP001, so that the row inserted before it is undone.
-- The zone's count is raised last: its row lock is what a busy zone queues for.
-- One row by OUT parameters, not a set: a set would be stored first, which costs a tenth of the statement.
CREATE OR REPLACE FUNCTION start_session(
    p_id uuid, p_plate text, p_class text, p_client text, p_key text, p_zone text, p_started_at timestamptz,
    p_minutes integer, p_ends_at timestamptz, p_over_at timestamptz, p_max_over_at timestamptz,
    p_method text, p_rate_version text, p_refund text, p_fee_after bigint[], p_fee_amount bigint[],
    OUT outcome text, OUT id uuid, OUT started_at timestamptz, OUT rate_version text,
    OUT version bigint, OUT occupied integer, OUT capacity integer, OUT next_over timestamptz
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO active_session (
        plate, vehicle_class, id, client, idempotency_key, zone_code, admission, started_at, minutes, ends_at,
        over_at, max_over_at, payment_method, rate_version, refund, fee_after, fee_amount)
    SELECT p_plate, p_class, p_id, p_client, p_key, p_zone, z.admission, p_started_at, p_minutes, p_ends_at,
           p_over_at, p_max_over_at, p_method, p_rate_version, p_refund, p_fee_after, p_fee_amount
      FROM zone_occupancy z WHERE z.zone_code = p_zone AND z.vehicle_class = p_class
    ON CONFLICT DO NOTHING;

    IF NOT FOUND THEN
        SELECT e.outcome, e.id, e.started_at, e.rate_version INTO outcome, id, started_at, rate_version
          FROM explain_start(p_plate, p_class, p_client, p_key, p_zone, p_started_at, p_minutes, p_method) e;
        RETURN;
    END IF;

    IF p_key IS NOT NULL THEN
        -- After the insert on purpose: it waited for a stop of the key's own session that was under way.
        SELECT e.outcome, e.id, e.started_at, e.rate_version INTO outcome, id, started_at, rate_version
          FROM ended_with_key(p_client, p_key, p_plate, p_class, p_zone, p_started_at, p_minutes, p_method) e;
        IF FOUND THEN
            DELETE FROM active_session a WHERE a.id = p_id;
            RETURN;
        END IF;
    END IF;

    UPDATE zone_occupancy z
       SET occupied = z.occupied + 1,
           version = z.version + 1,
           next_over = CASE WHEN z.admission = 'advisory' THEN LEAST(z.next_over, p_over_at) ELSE z.next_over END
     WHERE z.zone_code = p_zone AND z.vehicle_class = p_class
       AND (z.admission = 'advisory' OR z.occupied < z.capacity)
    RETURNING 'started', p_id, p_started_at, p_rate_version, z.version, z.occupied, z.capacity, z.next_over
         INTO outcome, id, started_at, rate_version, version, occupied, capacity, next_over;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'zone % is full for %', p_zone, p_class USING ERRCODE = 'IP001';
    END IF;
END
$$;
