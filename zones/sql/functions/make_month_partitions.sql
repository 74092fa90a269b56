-- Make the month partitions (Hanoi months) of parking_session that cover p_from up to p_months months later.
-- Idempotent. A month whose sessions already stand in the default partition is left there.
-- Out: the names of those made.
CREATE OR REPLACE FUNCTION make_month_partitions(p_from timestamptz, p_months integer) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
    v_month timestamp := date_trunc('month', p_from AT TIME ZONE 'Asia/Ho_Chi_Minh');
    v_start timestamptz;
    v_end timestamptz;
    v_name text;
BEGIN
    FOR i IN 0..p_months LOOP
        v_start := (v_month + make_interval(months => i)) AT TIME ZONE 'Asia/Ho_Chi_Minh';
        v_end := (v_month + make_interval(months => i + 1)) AT TIME ZONE 'Asia/Ho_Chi_Minh';
        v_name := 'parking_session_' || to_char(v_month + make_interval(months => i), 'YYYY_MM');
        IF to_regclass(v_name) IS NULL
           AND NOT EXISTS (SELECT FROM parking_session_default d WHERE d.started_at >= v_start AND d.started_at < v_end) THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF parking_session FOR VALUES FROM (%L) TO (%L)', v_name, v_start, v_end);
            RETURN NEXT v_name;
        END IF;
    END LOOP;
END
$$;
