-- What was charged, and for how many sessions: by place, class and bucket. A session is charged when it ends.
-- In:  as for sum_occupancy. Out: VND; a bucket in which no session ended is left out.
CREATE OR REPLACE FUNCTION sum_revenue(
    p_bounds timestamptz[], p_zones text[], p_places text[], p_classes text[], p_now timestamptz
) RETURNS TABLE (bucket integer, place text, vehicle_class text, sessions bigint, revenue bigint) LANGUAGE sql STABLE AS $$
    SELECT width_bucket(s.gone_at, p_bounds), z.place, s.vehicle_class, count(*), sum(s.fee)::bigint
      FROM sessions_between(p_bounds[1], p_bounds[cardinality(p_bounds)], p_now) s
      JOIN unnest(p_zones, p_places) z(zone_code, place) USING (zone_code)
     WHERE s.gone_at < p_bounds[cardinality(p_bounds)] AND s.vehicle_class = ANY (p_classes)
     GROUP BY 1, 2, 3
$$;
