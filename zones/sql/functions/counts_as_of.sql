-- Every zone's count at an instant: what the row holds, less the advisory sessions that are over but not yet tidied.
-- next_over is then the first instant at which this count may be too high.
CREATE OR REPLACE FUNCTION counts_as_of(p_now timestamptz) RETURNS TABLE (
    zone_code text, vehicle_class text, version bigint, occupied integer, capacity integer, next_over timestamptz
) LANGUAGE sql STABLE AS $$
    SELECT z.zone_code, z.vehicle_class, z.version, z.occupied - COALESCE(o.over, 0)::integer, z.capacity,
           CASE WHEN z.next_over <= p_now THEN o.next_over ELSE z.next_over END
      FROM zone_occupancy z
      LEFT JOIN LATERAL (
               SELECT count(*) FILTER (WHERE a.over_at <= p_now) AS over,
                      min(a.over_at) FILTER (WHERE a.over_at > p_now) AS next_over
                 FROM active_session a
                WHERE z.next_over <= p_now AND a.zone_code = z.zone_code AND a.vehicle_class = z.vehicle_class
                  AND a.counted AND a.admission = 'advisory'
           ) o ON true
$$;
