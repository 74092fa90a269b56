-- Judge sightings and store the checks: all of these looks in one transaction and one round trip. The verdicts are those of
-- zones/enforcement.py, which lists them.
-- In:  a JSON array of looks: id (the check's, if it is made), client, plates and vehicle_classes (the vehicles that the text
--      can mean, pair by pair), candidates (the zones in which it may stand, nearest first), lng, lat, accuracy (all null
--      where no position was told), captured_at, received_at, key, hash (hexadecimal; both null without a key);
--      the earliest and the latest captured_at among them;
--      how long grace lasts, how far back an ended session tells something, and how long a key is remembered.
-- Out: a row a look, named by its id. outcome is
--      made      the check is stored
--      repeated  the key's first check
--      conflict  the key was used with another request
--      again     the key is free again only now: it was remembered for long enough, or another's check did not last
CREATE OR REPLACE FUNCTION check_vehicles(
    p_looks json, p_earliest timestamptz, p_latest timestamptz, p_grace interval, p_reach interval, p_memory interval
) RETURNS TABLE (
    look uuid, outcome text, id uuid, plate text, vehicle_class text, verdict text, reasons text[], zone_code text,
    session_id uuid, expired_for_seconds integer, near_plates text[], captured_at timestamptz
) LANGUAGE plpgsql
-- The plans are made once, for few rows and by index, whatever the tables held when they were made.
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    v_made bigint;
BEGIN
    RETURN QUERY
        WITH look AS MATERIALIZED (
            SELECT l.* FROM json_to_recordset(p_looks) AS l(
                   id uuid, client text, plates text[], vehicle_classes text[], candidates text[], lng double precision,
                   lat double precision, accuracy double precision, captured_at timestamptz, received_at timestamptz, key text,
                   hash text)
        ), seen AS MATERIALIZED (  -- the vehicles, each with the session that nobody has stopped, or with a right
            SELECT l.id AS look, l.captured_at AS at, l.candidates, v.plate, v.vehicle_class, v.reading, a.id, a.zone_code,
                   a.over_at, a.admission, array_position(l.candidates, a.zone_code) AS nearness,
                   CASE WHEN a.over_at > l.captured_at AND a.zone_code = ANY (l.candidates) THEN NULL  -- it pays: ask no further
                        ELSE right_in(v.plate, v.vehicle_class, l.candidates, l.captured_at) END AS right_in
              FROM look l
             CROSS JOIN LATERAL unnest(l.plates, l.vehicle_classes) WITH ORDINALITY v(plate, vehicle_class, reading)
              LEFT JOIN active_session a
                ON a.plate = v.plate AND a.vehicle_class = v.vehicle_class AND a.started_at <= l.captured_at
             WHERE l.candidates <> '{}'
        ), long AS MATERIALIZED (  -- the few longer stays that ended within reach have an index of their own in every month
            SELECT p.plate, p.vehicle_class, p.id, p.zone_code, p.over_at, p.ended_at FROM parking_session p
             WHERE p.ended_at - p.started_at > interval '24 hours' AND p.ended_at > p_earliest - p_reach
               AND p.started_at < p_earliest - p_reach - interval '24 hours'
        ), stay AS MATERIALIZED (  -- those begun and not long gone; over_since is NULL where it runs
            SELECT s.look, s.at, s.plate, s.vehicle_class, s.reading, CASE WHEN s.right_in IS NULL THEN s.id END AS id,
                   COALESCE(s.candidates[s.right_in], s.zone_code) AS zone_code, COALESCE(s.right_in, s.nearness) AS nearness,
                   CASE WHEN s.right_in IS NULL AND s.over_at <= s.at THEN s.over_at END AS over_since
              FROM seen s  -- a right is a stay without a session
             WHERE s.right_in IS NOT NULL OR s.id IS NOT NULL AND (s.admission <> 'advisory' OR s.over_at > s.at - p_reach)
             UNION ALL
            SELECT s.look, s.at, s.plate, s.vehicle_class, s.reading, e.id, e.zone_code,
                   array_position(s.candidates, e.zone_code), e.over_since
              FROM seen s
             CROSS JOIN LATERAL (
                   SELECT p.id, p.zone_code,
                          CASE WHEN p.ended_at <= s.at THEN p.ended_at WHEN p.over_at <= s.at THEN p.over_at END AS over_since
                     FROM (SELECT p.id, p.zone_code, p.over_at, p.ended_at FROM parking_session p
                            WHERE p.plate = s.plate AND p.vehicle_class = s.vehicle_class AND p.started_at <= s.at
                              -- Of no look's own: so it is known beforehand which months need not be opened.
                              AND p.started_at >= p_earliest - p_reach - interval '24 hours' AND p.started_at <= p_latest
                            UNION ALL
                           SELECT l.id, l.zone_code, l.over_at, l.ended_at FROM long l
                            WHERE l.plate = s.plate AND l.vehicle_class = s.vehicle_class) p
                    WHERE p.ended_at > s.at - p_reach
                   OFFSET 0) e  -- which keeps the planner from looking at the sessions of all plates first
             -- A vehicle's sessions do not overlap: where one of them pays for this instant here, no other matters.
             WHERE s.nearness IS NULL OR s.over_at <= s.at
        ), ranked AS (
            SELECT s.*, CASE WHEN s.id IS NULL THEN 2
                             WHEN s.over_since IS NULL THEN CASE WHEN s.nearness IS NULL THEN 4 ELSE 1 END
                             WHEN s.nearness IS NULL THEN NULL
                             WHEN s.over_since > s.at - p_grace THEN 3 ELSE 5 END AS rank
              FROM stay s
        ), found AS (
            SELECT DISTINCT ON (r.look) r.* FROM ranked r WHERE r.rank IS NOT NULL
             ORDER BY r.look, r.rank, r.over_since DESC, r.nearness, r.reading
        )
        INSERT INTO parking_check AS c (
            id, client, plate, vehicle_class, zone_code, verdict, reasons, session_id, expired_for_seconds, position, accuracy,
            captured_at, received_at, idempotency_key, request_hash)
        SELECT l.id, l.client, COALESCE(f.plate, l.plates[1]),
               CASE WHEN cardinality(l.plates) = 1 THEN l.vehicle_classes[1] ELSE f.vehicle_class END,
               CASE WHEN f.rank IS NULL OR f.rank = 4 THEN l.candidates[1] ELSE f.zone_code END,
               COALESCE((ARRAY['paid', 'permit', 'grace', 'wrong_zone', 'expired'])[f.rank],
                        CASE WHEN l.candidates = '{}' THEN 'outside_zones' ELSE 'unpaid' END),
               ARRAY[COALESCE((ARRAY['session', 'right', 'grace', 'other_zone', 'expired'])[f.rank],
                              CASE WHEN l.candidates = '{}' THEN 'no_zone_here' ELSE 'no_session' END)],
               f.id, floor(extract(epoch FROM l.captured_at - f.over_since)), ST_SetSRID(ST_MakePoint(l.lng, l.lat), 4326),
               l.accuracy, l.captured_at, l.received_at, l.key, decode(l.hash, 'hex')
          FROM look l LEFT JOIN found f ON f.look = l.id
         ORDER BY l.client, l.key  -- two groups wait for each other's keys, but never in a circle
        ON CONFLICT (client, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
        RETURNING c.id, 'made', c.id, c.plate, c.vehicle_class, c.verdict, c.reasons, c.zone_code, c.session_id,
                  c.expired_for_seconds, c.near_plates, c.captured_at;
    GET DIAGNOSTICS v_made = ROW_COUNT;
    IF v_made = json_array_length(p_looks) THEN
        RETURN;
    END IF;

    -- After the insert: it waited for those who were using the same keys.
    RETURN QUERY
        SELECT l.id, COALESCE(f.outcome, 'again'), f.id, f.plate, f.vehicle_class, f.verdict, f.reasons, f.zone_code,
               f.session_id, f.expired_for_seconds, f.near_plates, f.captured_at
          FROM json_to_recordset(p_looks) AS l(id uuid, client text, received_at timestamptz, key text, hash text)
          LEFT JOIN LATERAL check_with_key(l.client, l.key, decode(l.hash, 'hex'), l.received_at - p_memory) f ON true
         WHERE l.key IS NOT NULL AND NOT EXISTS (SELECT FROM parking_check c WHERE c.id = l.id);
    UPDATE parking_check c SET idempotency_key = NULL
      FROM json_to_recordset(p_looks) AS l(client text, received_at timestamptz, key text)
     WHERE c.client = l.client AND c.idempotency_key = l.key AND c.received_at <= l.received_at - p_memory;
END
$$;
