-- Lock what closing a plate's last session and starting its next one take together, before either is done: the session, then the
-- counts of both zones in the order of start_sessions and close_sessions. By themselves, each would take its own zone in its
-- turn, and two that cross would wait for each other in a circle.
-- In:  the session that is over, and the zone of the next one. Where that session is gone, nothing is to be closed, or locked.
CREATE OR REPLACE FUNCTION lock_restart(p_id uuid, p_zone text) RETURNS void LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    v_zone text;
    v_class text;
BEGIN
    SELECT a.zone_code, a.vehicle_class INTO v_zone, v_class FROM active_session a WHERE a.id = p_id FOR UPDATE;
    IF FOUND THEN
        PERFORM FROM zone_occupancy z WHERE z.zone_code = ANY (ARRAY[v_zone, p_zone]) AND z.vehicle_class = v_class
          ORDER BY z.admission, z.zone_code FOR NO KEY UPDATE;
    END IF;
END
$$;
