-- The sessions of some vehicles that may say something about an instant each: begun by then, and not gone for p_reach.
-- In:  a JSON array of {member, plate, vehicle_class, at}; member is the caller's own number; how far back an ended session
--      still counts.
-- Out: over_at is when its time was over, or would have been;
--      gone_at when the vehicle gave its place back (NULL where it stands there still).
-- The sessions of one vehicle do not overlap: of those begun before the reach, only the last can end within it.
CREATE OR REPLACE FUNCTION sessions_about(p_seen json, p_reach interval) RETURNS TABLE (
    member integer, id uuid, zone_code text, plate text, vehicle_class text, started_at timestamptz, over_at timestamptz,
    gone_at timestamptz
) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT v.member, s.id, s.zone_code, v.plate, v.vehicle_class, s.started_at, s.over_at, s.gone_at
          FROM json_to_recordset(p_seen) AS v(member integer, plate text, vehicle_class text, at timestamptz)
         CROSS JOIN LATERAL (
               SELECT a.id, a.zone_code, a.started_at, a.over_at, CASE WHEN a.admission = 'advisory' THEN a.over_at END AS gone_at
                 FROM active_session a
                WHERE a.plate = v.plate AND a.vehicle_class = v.vehicle_class AND a.started_at <= v.at
                UNION ALL
               SELECT p.id, p.zone_code, p.started_at, p.over_at, p.ended_at
                 FROM parking_session p
                WHERE p.plate = v.plate AND p.vehicle_class = v.vehicle_class
                  AND p.started_at <= v.at AND p.started_at > v.at - p_reach
                UNION ALL
              (SELECT p.id, p.zone_code, p.started_at, p.over_at, p.ended_at
                 FROM parking_session p
                WHERE p.plate = v.plate AND p.vehicle_class = v.vehicle_class AND p.started_at <= v.at - p_reach
                ORDER BY p.started_at DESC LIMIT 1)
               ) s
         WHERE s.gone_at IS NULL OR s.gone_at > v.at - p_reach;
END
$$;
