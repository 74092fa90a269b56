-- Close sessions whose time is over, without their drivers: at over_at where admission is advisory, at p_now where it is
-- strict (the car stood there until it was seen elsewhere). Idempotent: a session that is gone gives no row.
-- In:  their ids, now, and why (expiry: the tidy job; restart: the same plate starts anew).
-- Out: the sessions as stop_sessions gives them; outcome is closed, or unpriced. member is NULL.
CREATE OR REPLACE FUNCTION end_sessions(p_ids uuid[], p_now timestamptz, p_ended_by text) RETURNS TABLE (
    member bigint, outcome text, id uuid, client text, zone_code text, plate text, vehicle_class text, started_at timestamptz,
    ends_at timestamptz, ended_at timestamptz, ended_by text, payment_method text, rate_version text, fee bigint,
    version bigint, occupied integer, capacity integer, next_over timestamptz
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    v_over active_session[];
    v_ended_at timestamptz[];
    v_fees bigint[];
    v_received_at timestamptz[];
BEGIN
    SELECT array_agg(f.session), array_agg(f.ended_at), array_agg(agreed_fee(f.session, f.ended_at)), array_agg(p_now)
      INTO v_over, v_ended_at, v_fees, v_received_at
      FROM (SELECT f.a AS session, CASE WHEN (f.a).admission = 'advisory' THEN (f.a).over_at ELSE p_now END AS ended_at
              FROM (SELECT i.id FROM unnest(p_ids) i(id) ORDER BY i.id) i
             CROSS JOIN LATERAL (
                   SELECT a FROM active_session a WHERE a.id = i.id AND a.over_at <= p_now FOR UPDATE) f(a)) f;
    RETURN QUERY
        WITH counts AS MATERIALIZED (SELECT * FROM close_sessions(v_over, p_ended_by, v_ended_at, v_fees, v_received_at))
        SELECT NULL::bigint, CASE WHEN v_fees[o.ordinality] IS NULL THEN 'unpriced' ELSE 'closed' END, o.id, o.client,
               o.zone_code, o.plate, o.vehicle_class, o.started_at, o.ends_at, v_ended_at[o.ordinality], p_ended_by,
               o.payment_method, o.rate_version, v_fees[o.ordinality], c.version, c.occupied, c.capacity, c.next_over
          FROM unnest(v_over) WITH ORDINALITY o
          LEFT JOIN counts c ON c.zone_code = o.zone_code AND c.vehicle_class = o.vehicle_class
                AND v_fees[o.ordinality] IS NOT NULL;
END
$$;
