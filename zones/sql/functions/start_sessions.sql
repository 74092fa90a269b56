-- Admit vehicles: all of these calls in one transaction and one round trip, each with an outcome of its own.
-- In:  a JSON array of objects with the columns of active_session, in the order in which they came; each id is a UUIDv7 of
--      its started_at. admission is the zone's; idempotency_key may be null.
-- Out: rows that name their members (positions in the array, from 1). outcome is
--      started        their sessions run; version, occupied, capacity, next_over are their zone's count after all of them
--      repeated       the key's first answer: id, started_at, rate_version are those of the session it made
--      conflict       the key was used with another body
--      already_parked another session of this plate and class runs
--      over           such a session is past its time and must be closed in the same transaction (lock_restart): id
--      full           the zone is strict and has no place left
--      not_served     the zone has no places for this class
--      unknown_zone   the zone keeps no count for this class
--      again          what stood in the way is gone by now
-- Plates are taken in their order, then zones in theirs (advisory ones first, as in close_sessions), so that two groups wait
-- for each other but never in a circle. Zones come last: their rows' locks are what a busy zone queues for.
CREATE OR REPLACE FUNCTION start_sessions(p_starts json) RETURNS TABLE (
    members bigint[], outcome text, id uuid, started_at timestamptz, rate_version text,
    version bigint, occupied integer, capacity integer, next_over timestamptz
) LANGUAGE plpgsql
-- The plans are made once, for few rows and by index, whatever the tables held when they were made. A join with a table that
-- grows would not keep to that (while the table is empty, reading all of it first looks as good): LATERAL with a LIMIT or a
-- lock in it, and = ANY (ARRAY(...)), leave the planner no choice but to look each row up.
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    v_wanted active_session[];
    v_inserted uuid[];
    v_admitted uuid[];
    v_strict uuid[];
    v_since timestamptz;
    v_room integer;
    z record;
BEGIN
    SELECT array_agg(s), min(s.started_at) - interval '24 hours' INTO v_wanted, v_since
      FROM json_populate_recordset(NULL::active_session, p_starts) s;

    WITH inserted AS (
        INSERT INTO active_session (
            plate, vehicle_class, id, client, idempotency_key, zone_code, admission, started_at, minutes, ends_at,
            over_at, max_over_at, payment_method, rate_version, refund, fee_after, fee_amount, free_until)
        SELECT s.plate, s.vehicle_class, s.id, s.client, s.idempotency_key, s.zone_code, o.admission, s.started_at,
               s.minutes, s.ends_at, s.over_at, s.max_over_at, s.payment_method, s.rate_version, s.refund, s.fee_after,
               s.fee_amount, s.free_until
          FROM unnest(v_wanted) WITH ORDINALITY s
          JOIN zone_occupancy o USING (zone_code, vehicle_class)
         WHERE o.capacity > 0
         ORDER BY s.plate, s.vehicle_class, s.ordinality
        ON CONFLICT DO NOTHING
        RETURNING id, admission
    )
    SELECT COALESCE(array_agg(id), '{}'), COALESCE(array_agg(id) FILTER (WHERE admission = 'strict'), '{}')
      INTO v_inserted, v_strict FROM inserted;
    v_admitted := v_inserted;

    -- After the insert on purpose: it waited for a stop of a key's own session that was under way.
    IF EXISTS (SELECT FROM unnest(v_wanted) s
                CROSS JOIN LATERAL (
                      SELECT FROM parking_session p
                       WHERE p.client = s.client AND p.idempotency_key = s.idempotency_key AND p.started_at > v_since
                       LIMIT 1) p
                WHERE s.id = ANY (v_admitted)) THEN
        RETURN QUERY
            WITH known AS MATERIALIZED (
                SELECT s.ordinality AS member, s.id AS new_id, e.*
                  FROM unnest(v_wanted) WITH ORDINALITY s
                 CROSS JOIN LATERAL ended_with_key(
                       s.client, s.idempotency_key, s.plate, s.vehicle_class, s.zone_code, s.started_at, s.minutes,
                       s.payment_method) e
                 WHERE s.id = ANY (v_admitted)
            ), undone AS (
                DELETE FROM active_session a WHERE a.id = ANY (ARRAY(SELECT k.new_id FROM known k))
            )
            SELECT ARRAY[k.member], k.outcome, k.id, k.started_at, k.rate_version,
                   NULL::bigint, NULL::integer, NULL::integer, NULL::timestamptz
              FROM known k;
        SELECT array_agg(a.id) INTO v_admitted FROM active_session a WHERE a.id = ANY (v_admitted);
    END IF;

    -- An advisory zone takes all who come, so one statement does for all such zones. Which a zone is was read with the insert:
    -- it may have been turned since.
    RETURN QUERY
        UPDATE zone_occupancy o
           SET occupied = o.occupied + cardinality(w.members),
               version = o.version + 1,
               next_over = LEAST(o.next_over, w.over_at)
          FROM (SELECT s.zone_code, s.vehicle_class, array_agg(s.ordinality) AS members, min(s.over_at) AS over_at
                  FROM unnest(v_wanted) WITH ORDINALITY s
                 WHERE s.id = ANY (v_admitted) AND s.id <> ALL (v_strict)
                 GROUP BY s.zone_code, s.vehicle_class
                 ORDER BY s.zone_code, s.vehicle_class) w
         WHERE o.zone_code = w.zone_code AND o.vehicle_class = w.vehicle_class
        RETURNING w.members, 'started', NULL::uuid, NULL::timestamptz, NULL::text, o.version, o.occupied, o.capacity, o.next_over;

    FOR z IN
        SELECT s.zone_code, s.vehicle_class, array_agg(s.ordinality ORDER BY s.ordinality) AS members
          FROM unnest(v_wanted) WITH ORDINALITY s
         WHERE s.id = ANY (v_admitted) AND s.id = ANY (v_strict)
         GROUP BY s.zone_code, s.vehicle_class
         ORDER BY s.zone_code, s.vehicle_class
    LOOP
        members := z.members;
        UPDATE zone_occupancy o
           SET occupied = o.occupied + cardinality(members), version = o.version + 1
         WHERE o.zone_code = z.zone_code AND o.vehicle_class = z.vehicle_class
           AND (o.admission = 'advisory' OR o.occupied + cardinality(members) <= o.capacity)
        RETURNING 'started', o.version, o.occupied, o.capacity, o.next_over
             INTO outcome, version, occupied, capacity, next_over;
        IF NOT FOUND THEN  -- strict, and not room for all of them: the first have it
            SELECT GREATEST(o.capacity - o.occupied, 0) INTO v_room FROM zone_occupancy o
             WHERE o.zone_code = z.zone_code AND o.vehicle_class = z.vehicle_class FOR NO KEY UPDATE;
            members := z.members[v_room + 1:];
            DELETE FROM active_session a
             WHERE a.id = ANY (ARRAY(SELECT s.id FROM unnest(v_wanted) WITH ORDINALITY s WHERE s.ordinality = ANY (members)));
            outcome := 'full';
            RETURN NEXT;
            CONTINUE WHEN v_room = 0;
            members := z.members[:v_room];
            UPDATE zone_occupancy o SET occupied = o.occupied + cardinality(members), version = o.version + 1
             WHERE o.zone_code = z.zone_code AND o.vehicle_class = z.vehicle_class
            RETURNING 'started', o.version, o.occupied, o.capacity, o.next_over
                 INTO outcome, version, occupied, capacity, next_over;
        END IF;
        RETURN NEXT;
    END LOOP;

    -- Last: what stood in a call's way may be another of this group, which may have been refused since.
    IF cardinality(v_inserted) < cardinality(v_wanted) THEN
        RETURN QUERY
            SELECT ARRAY[s.ordinality], e.outcome, e.id, e.started_at, e.rate_version,
                   NULL::bigint, NULL::integer, NULL::integer, NULL::timestamptz
              FROM unnest(v_wanted) WITH ORDINALITY s
             CROSS JOIN LATERAL explain_start(
                   s.plate, s.vehicle_class, s.client, s.idempotency_key, s.zone_code, s.started_at, s.minutes,
                   s.payment_method) e
             WHERE s.id <> ALL (v_inserted);
    END IF;
END
$$;
