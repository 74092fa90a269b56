-- What the service may do, as a role that owns nothing: iparking_service, if there is one. Run after every upgrade, by the
-- owner. It may read all and write what it works with; it cannot change what is booked, prices, zones, or the schema.
-- The ledger: SELECT and INSERT. There is no TRUNCATE for anybody but the owner.
DO $$
DECLARE
    v_table record;
    v_rights text;
    v_found text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'iparking_service') OR current_user = 'iparking_service' THEN
        RETURN;
    END IF;
    FOR v_table IN
        SELECT c.oid, c.relname, c.oid::regclass AS name FROM pg_class c
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND pg_has_role(c.relowner, 'USAGE')
           AND c.relname <> 'spatial_ref_sys'
         ORDER BY c.relname
    LOOP
        v_rights := CASE
            WHEN v_table.relname IN ('alembic_version', 'archived_month', 'city_share_rate', 'district', 'rate_line', 'rate_plan', 'revision',
                                     'vat_rate', 'ward', 'zone') OR v_table.relname ~ '^parking_session_' THEN 'SELECT'
            WHEN v_table.relname LIKE 'ledger\_%'
                OR v_table.relname IN ('audit_log', 'cash_movement', 'city_share_day', 'parking_session', 'receipt')
                THEN 'SELECT, INSERT'
            ELSE 'SELECT, INSERT, UPDATE, DELETE' END;
        -- Only what differs: a change of rights lets every session of the service plan anew.
        SELECT string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) INTO v_found
          FROM pg_class c, aclexplode(c.relacl) a
         WHERE c.oid = v_table.oid AND a.grantee = 'iparking_service'::regrole;
        IF v_found IS DISTINCT FROM (SELECT string_agg(r, ', ' ORDER BY r) FROM unnest(string_to_array(v_rights, ', ')) r) THEN
            EXECUTE format('REVOKE ALL ON %s FROM iparking_service', v_table.name);
            EXECUTE format('GRANT %s ON %s TO iparking_service', v_rights, v_table.name);
        END IF;
    END LOOP;
    GRANT USAGE ON SCHEMA public TO iparking_service;
    -- Months of parking_session are made by the owner later; their rows are written through their parent.
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO iparking_service;
    -- What runs with its owner's rights is for the service alone.
    REVOKE EXECUTE ON FUNCTION make_month_partitions FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION make_month_partitions TO iparking_service;
END
$$;
