-- Which vehicles may stand where without paying, and until when: rights, and permits, which are rights that last.
-- Down: drop table parking_right; drop function keep_right(); alter table active_session drop column free_until.

CREATE TABLE parking_right (
    id            uuid PRIMARY KEY,
    kind          text NOT NULL CHECK (kind IN ('resident', 'disabled', 'official', 'event', 'monthly')),
    plate         text NOT NULL CHECK (plate <> ''),
    vehicle_class text NOT NULL CHECK (vehicle_class IN ('car', 'motorbike')),
    zone_code     text,                       -- it holds in this zone,
    district_code text,                       -- or in this district, or (both null) in the whole city
    valid_from    timestamptz NOT NULL,
    valid_until   timestamptz NOT NULL,
    reference     text,                       -- the paper's, where there is one
    reason        text NOT NULL CHECK (reason <> ''),
    granted_at    timestamptz NOT NULL,
    granted_by    text NOT NULL,
    revoked_at    timestamptz,                -- it holds no longer from this instant on
    revoked_by    text,
    revocation    text,                       -- why
    CHECK (valid_from < valid_until),
    CHECK (zone_code IS NULL OR district_code IS NULL),
    CHECK ((revoked_at IS NULL) = (revoked_by IS NULL) AND (revoked_at IS NULL) = (revocation IS NULL)),
    -- The same right twice would have to be revoked twice. Rights of other kinds or places may overlap: a vehicle may stand
    -- where any of them lets it.
    CONSTRAINT parking_right_once EXCLUDE USING gist (
        plate WITH =, vehicle_class WITH =, kind WITH =, (COALESCE(zone_code, '')) WITH =, (COALESCE(district_code, '')) WITH =,
        tstzrange(valid_from, valid_until) WITH &&) WHERE (revoked_at IS NULL)
);
CREATE INDEX parking_right_plate ON parking_right (plate, vehicle_class, valid_until);
CREATE INDEX parking_right_zone ON parking_right (zone_code, id) WHERE zone_code IS NOT NULL;
CREATE INDEX parking_right_district ON parking_right (district_code, id) WHERE district_code IS NOT NULL;

-- Sessions and checks rest on what was granted: it stays as it was, and is revoked once.
CREATE FUNCTION keep_right() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.revoked_at IS NULL
       AND to_jsonb(NEW) - '{revoked_at,revoked_by,revocation}'::text[] = to_jsonb(OLD) - '{revoked_at,revoked_by,revocation}'::text[]
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'a right is only revoked, once' USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER parking_right_kept BEFORE UPDATE OR DELETE ON parking_right FOR EACH ROW EXECUTE FUNCTION keep_right();
CREATE TRIGGER parking_right_not_truncated BEFORE TRUNCATE ON parking_right
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- By a right, the stay costs nothing until this instant. Its price is agreed accordingly, and may have to be priced on.
ALTER TABLE active_session ADD COLUMN free_until timestamptz;
