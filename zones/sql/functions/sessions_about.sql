-- The sessions of some vehicles that may say something about an instant: begun by then, and not gone for p_reach.
-- In:  plates and their classes, pairwise; the instant; how far back an ended session still counts.
-- Out: over_at is when its time was over, or would have been;
--      gone_at when the vehicle gave its place back (NULL where it stands there still).
-- The sessions of one vehicle do not overlap: of those begun before the reach, only the last can end within it.
CREATE OR REPLACE FUNCTION sessions_about(
    p_plates text[], p_classes text[], p_at timestamptz, p_reach interval
) RETURNS TABLE (
    id uuid, zone_code text, plate text, vehicle_class text, started_at timestamptz, over_at timestamptz, gone_at timestamptz
) LANGUAGE sql STABLE AS $$
    SELECT s.id, s.zone_code, v.plate, v.vehicle_class, s.started_at, s.over_at, s.gone_at
      FROM unnest(p_plates, p_classes) v(plate, vehicle_class)
     CROSS JOIN LATERAL (
           SELECT a.id, a.zone_code, a.started_at, a.over_at, CASE WHEN a.admission = 'advisory' THEN a.over_at END AS gone_at
             FROM active_session a
            WHERE a.plate = v.plate AND a.vehicle_class = v.vehicle_class AND a.started_at <= p_at
            UNION ALL
           SELECT p.id, p.zone_code, p.started_at, p.over_at, p.ended_at
             FROM parking_session p
            WHERE p.plate = v.plate AND p.vehicle_class = v.vehicle_class
              AND p.started_at <= p_at AND p.started_at > p_at - p_reach
            UNION ALL
          (SELECT p.id, p.zone_code, p.started_at, p.over_at, p.ended_at
             FROM parking_session p
            WHERE p.plate = v.plate AND p.vehicle_class = v.vehicle_class AND p.started_at <= p_at - p_reach
            ORDER BY p.started_at DESC LIMIT 1)
           ) s
     WHERE s.gone_at IS NULL OR s.gone_at > p_at - p_reach
$$;
