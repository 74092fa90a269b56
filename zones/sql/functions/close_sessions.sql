-- Move active sessions to the past and give their places back. The caller holds the rows' locks.
-- In:  the rows of parking_session as they are to be.
-- Out: the counts of the zones they stood in (a place that was given back before is not given back again). The zones are
--      taken in their order, advisory ones first, as start_sessions takes them.
CREATE OR REPLACE FUNCTION close_sessions(p_over parking_session[]) RETURNS TABLE (
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
        DELETE FROM active_session a WHERE a.id = ANY (ARRAY(SELECT o.id FROM unnest(p_over) o))
        RETURNING a.zone_code, a.vehicle_class, a.admission, a.counted
    ), numbers AS (
        SELECT zone_code, vehicle_class, count(*) FILTER (WHERE counted) AS number
          FROM gone GROUP BY zone_code, vehicle_class ORDER BY min(admission), zone_code, vehicle_class
    )
    SELECT array_agg(zone_code), array_agg(vehicle_class), array_agg(number) INTO v_zones, v_classes, v_numbers FROM numbers;

    INSERT INTO parking_session SELECT o.* FROM unnest(p_over) o;

    RETURN QUERY
        UPDATE zone_occupancy z SET occupied = z.occupied - w.number, version = z.version + 1
          FROM unnest(v_zones, v_classes, v_numbers) w(zone_code, vehicle_class, number)
         WHERE z.zone_code = w.zone_code AND z.vehicle_class = w.vehicle_class
        RETURNING z.zone_code, z.vehicle_class, z.version, z.occupied, z.capacity, z.next_over;
END
$$;
