-- Make the month partitions (Hanoi months) of parking_session that cover p_from up to p_months months later, and those of
-- months whose sessions stand in the default partition, because nobody had made theirs in time: they are moved.
-- Idempotent. A month with more than p_most sessions in the default partition is left there: everybody waits for the move.
-- The table is made by itself and then attached, which keeps others waiting for some milliseconds. The caller's lock_timeout
-- says how long they may wait behind us before.
-- Every month is told that each client parks many times in it (n_distinct, from the next ANALYZE on): where most park once,
-- the planner holds the index on (client, id) to be as good for finding an idempotency key as the one on both, and a fleet's
-- start would read all that the fleet has parked this month.
-- It runs with the rights of the tables' owner, which the service lacks.
-- Out: the names of those made.
CREATE OR REPLACE FUNCTION make_month_partitions(p_from timestamptz, p_months integer, p_most bigint DEFAULT 20000)
RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_months timestamp[];
    v_month timestamp;
    v_start timestamptz;
    v_end timestamptz;
    v_name text;
    v_rows bigint;
    v_partition regclass;
BEGIN
    FOR v_partition IN
        SELECT i.inhrelid FROM pg_inherits i JOIN pg_attribute a ON a.attrelid = i.inhrelid AND a.attname = 'client'
         WHERE i.inhparent = 'parking_session'::regclass
           AND NOT EXISTS (SELECT FROM unnest(a.attoptions) o WHERE o LIKE 'n_distinct=%')
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN client SET (n_distinct = -0.01)', v_partition);
    END LOOP;

    SELECT array_agg(m ORDER BY m) INTO v_months
      FROM (SELECT date_trunc('month', p_from AT TIME ZONE 'Asia/Ho_Chi_Minh') + make_interval(months => i)
              FROM generate_series(0, p_months) i
             UNION
            SELECT date_trunc('month', d.started_at AT TIME ZONE 'Asia/Ho_Chi_Minh') FROM parking_session_default d) f(m);
    FOREACH v_month IN ARRAY v_months
    LOOP
        v_name := 'parking_session_' || to_char(v_month, 'YYYY_MM');
        CONTINUE WHEN to_regclass(v_name) IS NOT NULL;
        v_start := v_month AT TIME ZONE 'Asia/Ho_Chi_Minh';
        v_end := (v_month + interval '1 month') AT TIME ZONE 'Asia/Ho_Chi_Minh';
        EXECUTE format('CREATE TABLE %I (LIKE parking_session INCLUDING ALL)', v_name);
        EXECUTE format('ALTER TABLE %I ALTER COLUMN client SET (n_distinct = -0.01)', v_name);
        -- The parent too: a query that waited for the default partition alone has read by then which partitions there are, and
        -- would look for the moved sessions where they no longer stand.
        LOCK TABLE ONLY parking_session IN ACCESS EXCLUSIVE MODE;
        LOCK TABLE parking_session_default IN ACCESS EXCLUSIVE MODE;
        SELECT count(*) INTO v_rows FROM parking_session_default d WHERE d.started_at >= v_start AND d.started_at < v_end;
        IF v_rows > p_most THEN
            EXECUTE format('DROP TABLE %I', v_name);
            CONTINUE;
        ELSIF v_rows > 0 THEN
            ALTER TABLE parking_session_default DISABLE TRIGGER parking_session_append_only;  -- moved, not changed
            EXECUTE format('WITH moved AS (DELETE FROM parking_session_default d WHERE d.started_at >= $1 AND d.started_at < $2
                                           RETURNING *) INSERT INTO %I SELECT * FROM moved', v_name) USING v_start, v_end;
            ALTER TABLE parking_session_default ENABLE TRIGGER parking_session_append_only;
        END IF;
        EXECUTE format('ALTER TABLE parking_session ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', v_name, v_start, v_end);
        RETURN NEXT v_name;
    END LOOP;
END
$$;
