-- How long vehicles stood, how many at once, and how many came and went: by place, class and bucket.
-- In:  the n + 1 bounds of n buckets that follow each other; the place (a zone or its district) to which each zone's
--      vehicles are counted; the classes; now, after which nothing is known.
-- Out: bucket counts from 1; one without a vehicle may be left out. Microseconds, so that sums are exact.
-- A sweep along the time line: each arrival adds one, each departure takes one away, each bound begins anew; between two
-- instants the count stands still. A departure and an arrival at the same instant meet without being two.
CREATE OR REPLACE FUNCTION sum_occupancy(
    p_bounds timestamptz[], p_zones text[], p_places text[], p_classes text[], p_now timestamptz
) RETURNS TABLE (
    bucket integer, place text, vehicle_class text, occupied_us bigint, peak bigint, arrivals bigint, departures bigint
) LANGUAGE sql STABLE AS $$
    WITH span(first, last) AS (SELECT p_bounds[1], p_bounds[cardinality(p_bounds)]),
    stay AS MATERIALIZED (
        SELECT z.place, s.vehicle_class, s.started_at, s.gone_at
          FROM span
         CROSS JOIN LATERAL sessions_between(span.first, span.last, p_now) s
          JOIN unnest(p_zones, p_places) z(zone_code, place) USING (zone_code)
         WHERE s.vehicle_class = ANY (p_classes)
    ),
    event(place, vehicle_class, at, change, arrivals, departures) AS (
        SELECT place, vehicle_class, GREATEST(started_at, first), 1, (started_at >= first)::integer, 0 FROM stay, span
        UNION ALL
        SELECT place, vehicle_class, gone_at, -1, 0, 1 FROM stay, span WHERE gone_at < last
        UNION ALL
        SELECT place, vehicle_class, bound, 0, 0, 0
          FROM (SELECT DISTINCT place, vehicle_class FROM stay) p, span, unnest(p_bounds) bound
         WHERE bound < last AND bound <= p_now
    ),
    instant AS (
        SELECT place, vehicle_class, at, sum(change) AS change, sum(arrivals) AS arrivals, sum(departures) AS departures
          FROM event GROUP BY place, vehicle_class, at
    ),
    level AS (
        SELECT place, vehicle_class, at, arrivals, departures, sum(change) OVER line AS standing,
               LEAST(lead(at, 1, last) OVER line, p_now) AS until
          FROM instant, span WINDOW line AS (PARTITION BY place, vehicle_class ORDER BY at)
    )
    SELECT width_bucket(at, p_bounds), place, vehicle_class,
           sum(standing * extract(epoch FROM GREATEST(until - at, interval '0')) * 1000000)::bigint,
           max(standing)::bigint, sum(arrivals)::bigint, sum(departures)::bigint
      FROM level GROUP BY 1, 2, 3
$$;
