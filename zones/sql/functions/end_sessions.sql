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
    v_over parking_session[];
BEGIN
    SELECT array_agg(f.over) INTO v_over
      FROM (SELECT o AS over
              FROM (SELECT i.id FROM unnest(p_ids) i(id) ORDER BY i.id) i
             CROSS JOIN LATERAL (
                   SELECT a FROM active_session a WHERE a.id = i.id AND a.over_at <= p_now FOR UPDATE) f(a)
             CROSS JOIN LATERAL over_session(
                   f.a, CASE WHEN (f.a).admission = 'advisory' THEN (f.a).over_at ELSE p_now END, p_ended_by, p_now, NULL,
                   NULL) o) f;
    RETURN QUERY
        WITH counts AS MATERIALIZED (
            SELECT * FROM close_sessions((SELECT array_agg(o) FROM unnest(v_over) o WHERE o.fee IS NOT NULL))
        )
        SELECT NULL::bigint, CASE WHEN o.fee IS NULL THEN 'unpriced' ELSE 'closed' END, o.id, o.client, o.zone_code, o.plate,
               o.vehicle_class, o.started_at, o.ends_at, o.ended_at, o.ended_by, o.payment_method, o.rate_version, o.fee,
               c.version, c.occupied, c.capacity, c.next_over
          FROM unnest(v_over) o
          LEFT JOIN counts c ON c.zone_code = o.zone_code AND c.vehicle_class = o.vehicle_class AND o.fee IS NOT NULL;
END
$$;
