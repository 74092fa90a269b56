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
    v_over active_session[];
    v_ended_at timestamptz[];
    v_fees bigint[];
    v_received_at timestamptz[];
BEGIN
    SELECT array_agg(f.a), array_agg(f.ended_at), array_agg(0::bigint), array_agg(p_now)
      INTO v_over, v_ended_at, v_fees, v_received_at
      FROM (SELECT a, GREATEST(CASE WHEN a.admission = 'advisory' THEN LEAST(p_now, a.over_at) ELSE p_now END,
                               a.started_at) AS ended_at
              FROM active_session a WHERE a.id = ANY (p_ids) ORDER BY a.id FOR UPDATE) f;
    RETURN QUERY
        WITH counts AS MATERIALIZED (SELECT * FROM close_sessions(v_over, 'driver', v_ended_at, v_fees, v_received_at))
        SELECT NULL::bigint, 'closed', o.id, o.client, o.zone_code, o.plate, o.vehicle_class, o.started_at, o.ends_at,
               v_ended_at[o.ordinality], 'driver', o.payment_method, o.rate_version, v_fees[o.ordinality],
               c.version, c.occupied, c.capacity, c.next_over
          FROM unnest(v_over) WITH ORDINALITY o
          LEFT JOIN counts c ON c.zone_code = o.zone_code AND c.vehicle_class = o.vehicle_class;
END
$$;
