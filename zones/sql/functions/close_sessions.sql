-- Move active sessions to the past and give their places back. The caller holds the rows' locks.
-- In:  the sessions, and pairwise when each ended, what it owes (NULL: it is left where it is), when its end was received, and the
--      stop's own key and stopped_at, where there are any; by what they ended.
-- Out: the counts of the zones they stood in (a place that was given back before is not given back again). The zones are
--      taken in their order, advisory ones first, as start_sessions takes them.
-- Columns go by their names, never as whole rows of parking_session: one that is added does no harm.
CREATE OR REPLACE FUNCTION close_sessions(
    p_sessions active_session[], p_ended_by text, p_ended_at timestamptz[], p_fees bigint[], p_received_at timestamptz[],
    p_stop_keys text[] DEFAULT '{}', p_stops_requested_at timestamptz[] DEFAULT '{}'
) RETURNS TABLE (
    zone_code text, vehicle_class text, version bigint, occupied integer, capacity integer, next_over timestamptz
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    v_zones text[];
    v_classes text[];
    v_numbers bigint[];
BEGIN
    WITH gone AS (
        DELETE FROM active_session a
         WHERE a.id = ANY (ARRAY(SELECT s.id FROM unnest(p_sessions) WITH ORDINALITY s WHERE p_fees[s.ordinality] IS NOT NULL))
        RETURNING a.zone_code, a.vehicle_class, a.admission, a.counted
    ), numbers AS (
        SELECT zone_code, vehicle_class, count(*) FILTER (WHERE counted) AS number
          FROM gone GROUP BY zone_code, vehicle_class ORDER BY min(admission), zone_code, vehicle_class
    )
    SELECT array_agg(zone_code), array_agg(vehicle_class), array_agg(number) INTO v_zones, v_classes, v_numbers FROM numbers;

    INSERT INTO parking_session (
        id, plate, vehicle_class, client, idempotency_key, zone_code, admission, started_at, minutes, ends_at, over_at, ended_at,
        ended_by, received_at, payment_method, rate_version, fee, stop_key, stop_requested_at)
    SELECT s.id, s.plate, s.vehicle_class, s.client, s.idempotency_key, s.zone_code, s.admission, s.started_at, s.minutes,
           s.ends_at, s.over_at, p_ended_at[s.ordinality], p_ended_by, p_received_at[s.ordinality], s.payment_method,
           s.rate_version, p_fees[s.ordinality], p_stop_keys[s.ordinality], p_stops_requested_at[s.ordinality]
      FROM unnest(p_sessions) WITH ORDINALITY s
     WHERE p_fees[s.ordinality] IS NOT NULL;

    RETURN QUERY
        UPDATE zone_occupancy z SET occupied = z.occupied - w.number, version = z.version + 1
          FROM unnest(v_zones, v_classes, v_numbers) w(zone_code, vehicle_class, number)
         WHERE z.zone_code = w.zone_code AND z.vehicle_class = w.vehicle_class
        RETURNING z.zone_code, z.vehicle_class, z.version, z.occupied, z.capacity, z.next_over;
END
$$;

-- What made the whole rows before.
DROP FUNCTION IF EXISTS over_session(active_session, timestamptz, text, timestamptz, text, timestamptz);
