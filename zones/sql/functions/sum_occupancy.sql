-- How long vehicles stood, how many at once, and how many came and went: by place, class and bucket.
-- In:  the n + 1 bounds of n buckets that follow each other; the place (a zone or its district) to which each zone's
--      vehicles are counted; the classes; now, after which nothing is known.
-- Out: bucket counts from 1; one without a vehicle may be left out. Microseconds, so that sums are exact.
-- A sweep along the time line: each arrival adds one, each departure takes one away, each bound begins anew; between two
-- instants the count stands still. A departure and an arrival at the same instant meet without being two.
CREATE OR REPLACE FUNCTION sum_occupancy(
    p_bounds timestamptz[], p_zones text[], p_places text[], p_classes text[], p_now timestamptz
) RETURNS TABLE (
    bucket integer, place text, vehicle_class text, occupied_us bigint, peak integer, arrivals bigint, departures bigint
) LANGUAGE sql STABLE AS $$
    WITH stay AS MATERIALIZED (
        SELECT z.place, s.vehicle_class, s.started_at, s.gone_at
          FROM sessions_between(p_bounds[1], p_bounds[cardinality(p_bounds)], p_now) s
          JOIN unnest(p_zones, p_places) z(zone_code, place) USING (zone_code)
         WHERE s.vehicle_class = ANY (p_classes) AND p_bounds[1] <= p_now
    ),
    event(place, vehicle_class, at, change, arrivals, departures) AS (
        SELECT place, vehicle_class, GREATEST(started_at, p_bounds[1]), 1, (started_at >= p_bounds[1])::integer, 0 FROM stay
        UNION ALL
        SELECT place, vehicle_class, gone_at, -1, 0, 1 FROM stay WHERE gone_at < p_bounds[cardinality(p_bounds)]
        UNION ALL
        SELECT place, vehicle_class, bound, 0, 0, 0
          FROM (SELECT DISTINCT place, vehicle_class FROM stay) p, unnest(p_bounds) bound
         WHERE bound < p_bounds[cardinality(p_bounds)] AND bound <= p_now
    ),
    level AS (
        -- Rows of the same instant are peers: each gets the count after all of them.
        SELECT place, vehicle_class, at, arrivals, departures, sum(change) OVER line AS standing,
               LEAST(lead(at, 1, p_bounds[cardinality(p_bounds)]) OVER line, p_now) AS until
          FROM event WINDOW line AS (PARTITION BY place, vehicle_class ORDER BY at)
    )
    SELECT width_bucket(at, p_bounds), place, vehicle_class,
           sum(CASE WHEN until > at THEN standing * (extract(epoch FROM until - at) * 1000000)::bigint ELSE 0 END)::bigint,
           max(standing)::integer, sum(arrivals)::bigint, sum(departures)::bigint
      FROM level GROUP BY 1, 2, 3
$$;
