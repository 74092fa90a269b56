-- Give back the places of advisory sessions whose time is over, and set each touched zone's next_over.
-- Zones are taken in their order, advisory ones first, as start_sessions and close_sessions take them. These go by the admission at
-- a session's start: where a zone was turned since, a circle is possible, PostgreSQL undoes one of the two, and it is tried again.
-- Sessions that somebody is stopping at this moment are skipped: that stop gives the place back (and locks the other way round).
-- In:  now. Out: a row a zone and class whose count changed or was looked at.
CREATE OR REPLACE FUNCTION release_over(p_now timestamptz) RETURNS TABLE (
    zone_code text, vehicle_class text, version bigint, occupied integer, capacity integer, next_over timestamptz
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    z record;
    v_released integer;
BEGIN
    FOR z IN SELECT o.zone_code, o.vehicle_class FROM zone_occupancy o WHERE o.next_over <= p_now
             ORDER BY o.admission, o.zone_code, o.vehicle_class FOR UPDATE
    LOOP
        UPDATE active_session a SET counted = false
          FROM (SELECT s.id FROM active_session s
                 WHERE s.zone_code = z.zone_code AND s.vehicle_class = z.vehicle_class AND s.over_at <= p_now
                   AND s.counted AND s.admission = 'advisory'
                   FOR UPDATE SKIP LOCKED) over
         WHERE a.id = over.id;
        GET DIAGNOSTICS v_released = ROW_COUNT;
        RETURN QUERY
            UPDATE zone_occupancy o
               SET occupied = o.occupied - v_released,
                   version = o.version + 1,
                   next_over = (SELECT min(s.over_at) FROM active_session s
                                 WHERE s.zone_code = z.zone_code AND s.vehicle_class = z.vehicle_class
                                   AND s.counted AND s.admission = 'advisory')
             WHERE o.zone_code = z.zone_code AND o.vehicle_class = z.vehicle_class
            RETURNING o.zone_code, o.vehicle_class, o.version, o.occupied, o.capacity, o.next_over;
    END LOOP;
END
$$;
