-- Take back starts that were not paid for: the sessions end at the instant they began, and cost nothing.
-- In:  their ids, and now. Those that are over already are left alone.
-- Out: the counts of the zones they stood in (close_sessions).
CREATE OR REPLACE FUNCTION void_sessions(p_ids uuid[], p_now timestamptz) RETURNS TABLE (
    zone_code text, vehicle_class text, version bigint, occupied integer, capacity integer, next_over timestamptz
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
    SELECT array_agg(f.a), array_agg((f.a).started_at), array_agg(0::bigint), array_agg(p_now)
      INTO v_over, v_ended_at, v_fees, v_received_at
      FROM (SELECT a FROM active_session a WHERE a.id = ANY (p_ids) ORDER BY a.id FOR UPDATE) f;
    RETURN QUERY SELECT * FROM close_sessions(v_over, 'driver', v_ended_at, v_fees, v_received_at);
END
$$;
