-- Stop sessions: all of these calls in one transaction and one round trip, each with an outcome of its own.
-- In:  a JSON array of {id, started_at (the id holds it), client, stopped_at or null, now, key or null}, in the order in
--      which they came.
-- Out: a row a member (its position in the array, from 1). outcome is
--      stopped        this call ended it; version, occupied, capacity, next_over are its zone's count
--      repeated       the key's first answer again
--      conflict       the key was used with another stopped_at
--      unknown        the client has no such session
--      ended          it was stopped before;  expired: its time was over before stopped_at
--      before_start   stopped_at lies before the start
--      unpriced       the stay is longer than what was priced: fee_after and fee_amount must be continued
--      again          another call of this group was for the same session, and was refused
CREATE OR REPLACE FUNCTION stop_sessions(p_stops json) RETURNS TABLE (
    member bigint, outcome text, id uuid, client text, zone_code text, plate text, vehicle_class text, started_at timestamptz,
    ends_at timestamptz, ended_at timestamptz, ended_by text, payment_method text, rate_version text, fee bigint,
    version bigint, occupied integer, capacity integer, next_over timestamptz
) LANGUAGE plpgsql
-- As in start_sessions: every row is looked up.
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    v_found active_session[];
    v_sessions active_session[];  -- each of them once; then pairwise what becomes of it, by whose call
    v_members bigint[];
    v_outcomes text[];
    v_ended_at timestamptz[];
    v_fees bigint[];              -- NULL where it goes on
    v_received_at timestamptz[];
    v_keys text[];
    v_requested_at timestamptz[];
BEGIN
    -- Locked in the order of their ids: the inner query runs once for each row of the outer one. IS NOT DISTINCT FROM, which no
    -- index serves: by the client alone all that a fleet has parked might be read.
    SELECT array_agg(f.session) INTO v_found
      FROM (SELECT s.id, s.client FROM json_to_recordset(p_stops) AS s(id uuid, client text) ORDER BY s.id) s
     CROSS JOIN LATERAL (
           SELECT a AS session FROM active_session a WHERE a.id = s.id AND a.client IS NOT DISTINCT FROM s.client FOR UPDATE) f;

    IF v_found IS NOT NULL THEN
        SELECT array_agg(f.session), array_agg(f.member), array_agg(f.outcome), array_agg(f.ended_at),
               array_agg(CASE f.outcome WHEN 'stopped' THEN f.fee END), array_agg(f.now), array_agg(f.key),
               array_agg(f.stopped_at)
          INTO v_sessions, v_members, v_outcomes, v_ended_at, v_fees, v_received_at, v_keys, v_requested_at
          FROM (SELECT DISTINCT ON (a.id) a AS session, s.member, s.now, s.key, s.stopped_at, e.ended_at, o.fee,
                       CASE WHEN e.ended_at < a.started_at THEN 'before_start'
                            WHEN a.admission = 'advisory' AND e.ended_at >= a.over_at THEN 'expired'
                            WHEN o.fee IS NULL THEN 'unpriced'
                            ELSE 'stopped' END AS outcome
                  FROM stop_calls(p_stops) s
                  JOIN unnest(v_found) a ON a.id = s.id AND a.client = s.client
                       -- Another process's clock may be a little ahead of ours: never before the start.
                 CROSS JOIN LATERAL (SELECT COALESCE(s.stopped_at, GREATEST(s.now, a.started_at))) e(ended_at)
                 CROSS JOIN LATERAL (SELECT agreed_fee(a, e.ended_at)) o(fee)
                 ORDER BY a.id, s.member) f;
        RETURN QUERY
            WITH counts AS MATERIALIZED (
                SELECT * FROM close_sessions(
                    v_sessions, 'driver', v_ended_at, v_fees, v_received_at, v_keys, v_requested_at)
            )
            SELECT v_members[o.ordinality], v_outcomes[o.ordinality], o.id, o.client, o.zone_code, o.plate, o.vehicle_class,
                   o.started_at, o.ends_at, v_ended_at[o.ordinality], 'driver', o.payment_method, o.rate_version,
                   v_fees[o.ordinality], c.version, c.occupied, c.capacity, c.next_over
              FROM unnest(v_sessions) WITH ORDINALITY o
              LEFT JOIN counts c ON c.zone_code = o.zone_code AND c.vehicle_class = o.vehicle_class
                    AND v_outcomes[o.ordinality] = 'stopped';
        IF cardinality(v_members) = json_array_length(p_stops) THEN
            RETURN;
        END IF;
    END IF;

    -- After the others were closed: two calls for one session may come in one group.
    RETURN QUERY
        SELECT s.member,
               CASE WHEN p.id IS NULL THEN
                         CASE WHEN EXISTS (SELECT FROM unnest(v_found) a WHERE a.id = s.id AND a.client = s.client)
                              THEN 'again' ELSE 'unknown' END
                    WHEN p.stop_key = s.key AND p.stop_requested_at IS NOT DISTINCT FROM s.stopped_at THEN 'repeated'
                    WHEN p.stop_key = s.key THEN 'conflict'
                    WHEN p.ended_by = 'driver' THEN 'ended'
                    ELSE 'expired' END,
               s.id, p.client, p.zone_code, p.plate, p.vehicle_class, p.started_at, p.ends_at, p.ended_at, p.ended_by,
               p.payment_method, p.rate_version, p.fee, NULL::bigint, NULL::integer, NULL::integer, NULL::timestamptz
          FROM stop_calls(p_stops) s
          LEFT JOIN parking_session p
            ON p.id = s.id AND p.started_at = s.started_at AND p.client IS NOT DISTINCT FROM s.client
         WHERE s.member <> ALL (COALESCE(v_members, '{}'));
END
$$;

-- The calls of stop_sessions as rows.
CREATE OR REPLACE FUNCTION stop_calls(p_stops json) RETURNS TABLE (
    member bigint, id uuid, started_at timestamptz, client text, stopped_at timestamptz, now timestamptz, key text
) LANGUAGE sql IMMUTABLE AS $$
    SELECT s.member, s.id, s.started_at, s.client, s.stopped_at, s.now, s.key
      FROM ROWS FROM (json_to_recordset(p_stops) AS (
               id uuid, started_at timestamptz, client text, stopped_at timestamptz, now timestamptz, key text))
           WITH ORDINALITY s(id, started_at, client, stopped_at, now, key, member)
$$;
