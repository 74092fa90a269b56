-- All sessions, running and over, as they stand at an instant: the same answer before and after the tidy job moved a row.
-- Out: fee is what is owed so far (NULL where a strict overstay is longer than what was priced); final once ended.
--      free_until is told while the row of what runs is there: what is over has its fee.
-- Inlined by the planner: the caller's WHERE on id, started_at, client, plate or zone reaches both tables' indexes.
CREATE OR REPLACE FUNCTION sessions_as_of(p_now timestamptz) RETURNS TABLE (
    id uuid, client text, zone_code text, plate text, vehicle_class text, admission text, state text,
    started_at timestamptz, ends_at timestamptz, ended_at timestamptz, payment_method text, rate_version text, fee bigint,
    free_until timestamptz
) LANGUAGE sql STABLE AS $$
    SELECT a.id, a.client, a.zone_code, a.plate, a.vehicle_class, a.admission,
           CASE WHEN a.over_at > p_now THEN 'running' ELSE 'expired' END,
           a.started_at, a.ends_at, CASE WHEN a.admission = 'advisory' AND a.over_at <= p_now THEN a.over_at END,
           a.payment_method, a.rate_version,
           agreed_fee(a, CASE WHEN a.admission = 'advisory' THEN COALESCE(a.ends_at, LEAST(p_now, a.over_at))
                              ELSE GREATEST(a.ends_at, p_now) END),
           a.free_until
      FROM active_session a
    UNION ALL
    SELECT p.id, p.client, p.zone_code, p.plate, p.vehicle_class, p.admission,
           CASE WHEN p.ended_by = 'driver' THEN 'ended' ELSE 'expired' END,
           p.started_at, p.ends_at, p.ended_at, p.payment_method, p.rate_version, p.fee, NULL
      FROM parking_session p
$$;
