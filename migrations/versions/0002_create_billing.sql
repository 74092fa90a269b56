-- What is owed: dated rates, payments.
-- Down: drop everything listed here, in reverse order.

-- One version of the price of an area, vehicle class and unit.
CREATE TABLE rate_plan (
    version          text PRIMARY KEY CHECK (version <> ''),
    rate_area        text NOT NULL CHECK (rate_area <> ''),
    vehicle_class    text NOT NULL CHECK (vehicle_class IN ('car', 'motorbike')),
    unit             text NOT NULL CHECK (unit IN ('hour', 'turn', 'month')),
    valid_from       timestamptz NOT NULL,
    valid_to         timestamptz CHECK (valid_to >= valid_from),  -- equal: withdrawn before it began
    timezone         text NOT NULL,
    day_start        time,
    night_start      time CHECK (night_start <> day_start),
    night_cap        bigint CHECK (night_cap >= 0),
    daily_cap        bigint CHECK (daily_cap >= 0),
    free_minutes     integer NOT NULL DEFAULT 0 CHECK (free_minutes >= 0),
    max_stay_minutes integer CHECK (max_stay_minutes > 0),
    refund           text NOT NULL DEFAULT 'unused' CHECK (refund IN ('unused', 'none')),
    CONSTRAINT rate_plan_windows CHECK ((day_start IS NULL) = (night_start IS NULL)),
    CONSTRAINT rate_plan_night_cap_use CHECK (night_cap IS NULL OR (unit = 'hour' AND night_start IS NOT NULL)),
    CONSTRAINT rate_plan_daily_cap_use CHECK (daily_cap IS NULL OR unit = 'hour'),
    -- At any instant an area and class has one price for a stay (by the hour or by the turn) and one for a month.
    CONSTRAINT rate_plan_one_at_a_time EXCLUDE USING gist (
        rate_area WITH =, vehicle_class WITH =, ((unit = 'month')::integer) WITH =, tstzrange(valid_from, valid_to) WITH &&)
);

-- What one unit of a part costs: by day from the unit numbered from_unit on, by night, for a full day (or month).
CREATE TABLE rate_line (
    version   text NOT NULL REFERENCES rate_plan,
    part      text NOT NULL CHECK (part IN ('day', 'night', 'full_day')),
    from_unit integer NOT NULL DEFAULT 1 CHECK (from_unit >= 1),
    price     bigint NOT NULL CHECK (price >= 0),
    source    text NOT NULL CHECK (source IN ('decree', 'assumed')),
    PRIMARY KEY (version, part, from_unit),
    CHECK (part = 'day' OR from_unit = 1)
);

-- Sessions are priced by the version they started under, so a version never changes. A later one ends it.
CREATE TRIGGER rate_plan_unchanged BEFORE DELETE OR UPDATE OF
    version, rate_area, vehicle_class, unit, valid_from, timezone, day_start, night_start, night_cap, daily_cap, free_minutes,
    max_stay_minutes, refund
    ON rate_plan FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER rate_line_unchanged BEFORE UPDATE OR DELETE ON rate_line
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- A plan must come with the prices that its unit cannot do without, by the end of its transaction.
CREATE FUNCTION refuse_plan_without_prices() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_needed text[] := CASE WHEN NEW.unit = 'month' THEN '{full_day}'
                            WHEN NEW.unit = 'turn' AND NEW.night_start IS NOT NULL THEN '{day,night}'
                            ELSE '{day}' END;
BEGIN
    IF EXISTS (SELECT unnest(v_needed)
               EXCEPT SELECT part FROM rate_line WHERE version = NEW.version AND from_unit = 1) THEN
        RAISE EXCEPTION 'rate plan % lacks one of its prices: %', NEW.version, v_needed
            USING ERRCODE = 'check_violation', CONSTRAINT = 'rate_plan_has_prices', TABLE = 'rate_plan';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER rate_plan_has_prices AFTER INSERT ON rate_plan DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION refuse_plan_without_prices();

CREATE TRIGGER rate_plan_revision AFTER INSERT OR UPDATE OR DELETE ON rate_plan
    FOR EACH STATEMENT EXECUTE FUNCTION bump_revision('rates');
CREATE TRIGGER rate_line_revision AFTER INSERT OR UPDATE OR DELETE ON rate_line
    FOR EACH STATEMENT EXECUTE FUNCTION bump_revision('rates');

-- The money for one session: due when it ends, then paid or failed for good.
CREATE TABLE payment (
    id                uuid PRIMARY KEY,
    session_id        uuid NOT NULL UNIQUE,
    client            text NOT NULL,
    method            text NOT NULL CHECK (method IN ('wallet', 'card', 'vietqr', 'cash')),
    amount            bigint NOT NULL CHECK (amount > 0),
    currency          text NOT NULL CHECK (currency = 'VND'),
    state             text NOT NULL CHECK (state IN ('due', 'paid', 'failed')),
    created_at        timestamptz NOT NULL,
    settled_at        timestamptz,
    gateway_reference text,
    CHECK ((state = 'due') = (settled_at IS NULL)),
    CHECK ((state = 'paid') = (gateway_reference IS NOT NULL))
);
CREATE INDEX payment_due ON payment (method, created_at, id) WHERE state = 'due';
