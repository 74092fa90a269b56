-- The sessions that touch a span of time, as they stand at p_now: begun before its end, not gone before its start.
-- Out: gone_at is when the vehicle gave its place back (NULL where it stands there still); fee is what was charged then.
-- The same answer as sessions_as_of(p_now) with a WHERE, in a form that leaves months aside: a stay of at most a day began
-- at most a day before the span, and the few longer ones (strict overstays) have an index of their own.
CREATE OR REPLACE FUNCTION sessions_between(p_from timestamptz, p_to timestamptz, p_now timestamptz) RETURNS TABLE (
    zone_code text, vehicle_class text, started_at timestamptz, gone_at timestamptz, fee bigint
) LANGUAGE sql STABLE AS $$
    SELECT a.zone_code, a.vehicle_class, a.started_at, o.gone_at,
           CASE WHEN o.gone_at IS NOT NULL THEN agreed_fee(a, o.gone_at) END
      FROM active_session a
     CROSS JOIN LATERAL (SELECT CASE WHEN a.admission = 'advisory' AND a.over_at <= p_now THEN a.over_at END) o(gone_at)
     WHERE a.started_at < p_to AND a.started_at <= p_now AND (o.gone_at IS NULL OR o.gone_at >= p_from)
    UNION ALL
    SELECT p.zone_code, p.vehicle_class, p.started_at, p.ended_at, p.fee
      FROM parking_session p
     WHERE p.started_at >= p_from - interval '24 hours' AND p.started_at < p_to AND p.ended_at >= p_from
    UNION ALL
    SELECT p.zone_code, p.vehicle_class, p.started_at, p.ended_at, p.fee
      FROM parking_session p
     WHERE p.started_at < p_from - interval '24 hours'
       AND p.ended_at - p.started_at > interval '24 hours' AND p.ended_at >= p_from
$$;
