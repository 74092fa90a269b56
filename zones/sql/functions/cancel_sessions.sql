-- End sessions that were started by mistake: now, or when their time was over, and for nothing. One that has ended gives no row.
-- In:  their ids, and now.
-- Out: the sessions as stop_sessions gives them; outcome is closed, fee is 0, member is NULL.
CREATE OR REPLACE FUNCTION cancel_sessions(p_ids uuid[], p_now timestamptz) RETURNS TABLE (
    member bigint, outcome text, id uuid, client text, zone_code text, plate text, vehicle_class text, started_at timestamptz,
    ends_at timestamptz, ended_at timestamptz, ended_by text, payment_method text, rate_version text, fee bigint,
    version bigint, occupied integer, capacity integer, next_over timestamptz
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_over parking_session[] := '{}';
    v_one parking_session;
BEGIN
    FOR v_one IN
        SELECT o.* FROM (SELECT a FROM active_session a WHERE a.id = ANY (p_ids) ORDER BY a.id FOR UPDATE) f(a)
         CROSS JOIN LATERAL over_session(
               f.a, GREATEST(CASE WHEN (f.a).admission = 'advisory' THEN LEAST(p_now, (f.a).over_at) ELSE p_now END,
                             (f.a).started_at), 'driver', p_now, NULL, NULL) o
    LOOP
        v_one.fee := 0;
        v_over := v_over || v_one;
    END LOOP;
    RETURN QUERY
        WITH counts AS MATERIALIZED (SELECT * FROM close_sessions(v_over))
        SELECT NULL::bigint, 'closed', o.id, o.client, o.zone_code, o.plate, o.vehicle_class, o.started_at, o.ends_at,
               o.ended_at, o.ended_by, o.payment_method, o.rate_version, o.fee, c.version, c.occupied, c.capacity, c.next_over
          FROM unnest(v_over) o
          LEFT JOIN counts c ON c.zone_code = o.zone_code AND c.vehicle_class = o.vehicle_class;
END
$$;
