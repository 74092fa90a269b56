-- Where vehicles are: dated area layers, zones, counts, sessions, checks.
-- Down: drop everything listed here, in reverse order.

CREATE EXTENSION IF NOT EXISTS postgis;
CREATE EXTENSION IF NOT EXISTS btree_gist;

-- What processes keep in memory (zones, rates) carries a revision; they look at this table once a second.
CREATE TABLE revision (
    name  text PRIMARY KEY,
    value bigint NOT NULL
);

CREATE FUNCTION bump_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO revision (name, value) VALUES (TG_ARGV[0], 1)
    ON CONFLICT (name) DO UPDATE SET value = revision.value + 1;
    RETURN NULL;
END
$$;

CREATE TABLE district (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code       text NOT NULL,
    name       text NOT NULL,
    joined     date,
    geometry   geometry(MultiPolygon, 4326) NOT NULL,
    valid_from date NOT NULL,
    valid_to   date CHECK (valid_to >= valid_from)
);
CREATE UNIQUE INDEX district_current ON district (code) WHERE valid_to IS NULL;

CREATE TABLE ward (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code          text NOT NULL,
    name          text NOT NULL,
    district_code text,
    geometry      geometry(MultiPolygon, 4326) NOT NULL,
    valid_from    date NOT NULL,
    valid_to      date CHECK (valid_to >= valid_from)
);
CREATE UNIQUE INDEX ward_current ON ward (code) WHERE valid_to IS NULL;

CREATE TABLE zone (
    id               uuid PRIMARY KEY,
    code             text NOT NULL CHECK (code <> ''),
    name             text NOT NULL,
    street           text NOT NULL,
    district_code    text NOT NULL,
    rate_area        text NOT NULL,
    kind             text NOT NULL CHECK (kind IN ('kerb', 'off_street')),
    admission        text NOT NULL CHECK (admission IN ('advisory', 'strict')),
    max_stay_minutes integer NOT NULL CHECK (max_stay_minutes > 0),
    capacity_source  text NOT NULL,
    geometry         geometry(Polygon, 4326) NOT NULL,
    published_at     timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    valid_from       timestamptz NOT NULL,
    valid_to         timestamptz,
    -- Half-open: the old version ends at the instant at which the new one begins.
    EXCLUDE USING gist (code WITH =, tstzrange(valid_from, valid_to) WITH &&)
);
CREATE UNIQUE INDEX zone_current ON zone (code) WHERE valid_to IS NULL;

-- Counts belong to the zone's code, not to one of its versions.
CREATE TABLE zone_occupancy (
    zone_code     text NOT NULL,
    vehicle_class text NOT NULL CHECK (vehicle_class IN ('car', 'motorbike')),
    admission     text NOT NULL CHECK (admission IN ('advisory', 'strict')),
    capacity      integer NOT NULL CHECK (capacity >= 0),
    occupied      integer NOT NULL DEFAULT 0 CHECK (occupied >= 0),
    version       bigint NOT NULL DEFAULT 1,
    next_over     timestamptz,  -- no advisory session counted here is over before this instant
    PRIMARY KEY (zone_code, vehicle_class)
) WITH (fillfactor = 50);

-- The backstop: no path through the code can raise a strict zone's count past its capacity.
CREATE FUNCTION refuse_over_capacity() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'zone % is full for %', NEW.zone_code, NEW.vehicle_class
        USING ERRCODE = 'check_violation', CONSTRAINT = 'zone_occupancy_capacity', TABLE = 'zone_occupancy';
END
$$;
CREATE TRIGGER zone_occupancy_capacity BEFORE UPDATE OF occupied ON zone_occupancy FOR EACH ROW
    WHEN (NEW.occupied > OLD.occupied AND NEW.admission = 'strict' AND NEW.occupied > NEW.capacity)
    EXECUTE FUNCTION refuse_over_capacity();

CREATE TRIGGER zone_revision AFTER INSERT OR UPDATE OR DELETE ON zone
    FOR EACH STATEMENT EXECUTE FUNCTION bump_revision('zones');
CREATE TRIGGER district_revision AFTER INSERT OR UPDATE OR DELETE ON district
    FOR EACH STATEMENT EXECUTE FUNCTION bump_revision('zones');
CREATE TRIGGER zone_occupancy_revision AFTER INSERT OR UPDATE OF capacity, admission OR DELETE ON zone_occupancy
    FOR EACH STATEMENT EXECUTE FUNCTION bump_revision('zones');

-- What runs. One plate and class has one session in the whole city.
CREATE TABLE active_session (
    plate           text NOT NULL CHECK (plate <> ''),
    vehicle_class   text NOT NULL,
    id              uuid NOT NULL,
    client          text NOT NULL,
    idempotency_key text,
    zone_code       text NOT NULL,
    admission       text NOT NULL,          -- the zone's rule when this session began
    started_at      timestamptz NOT NULL,
    minutes         integer,                -- as first asked for; NULL: until stopped
    ends_at         timestamptz,
    over_at         timestamptz NOT NULL,   -- ends_at, or the end of the maximum stay
    max_over_at     timestamptz NOT NULL,   -- how far ends_at may be extended
    counted         boolean NOT NULL DEFAULT true,
    payment_method  text NOT NULL,
    rate_version    text NOT NULL,
    refund          text NOT NULL CHECK (refund IN ('unused', 'none')),
    -- The price as agreed at the start: fee_amount[i] is owed once the stay has lasted fee_after[i] microseconds.
    -- fee_after has one element more: the stay for which no price has been worked out yet.
    fee_after       bigint[] NOT NULL,
    fee_amount      bigint[] NOT NULL,
    PRIMARY KEY (plate, vehicle_class),
    CHECK (over_at > started_at),
    CHECK (cardinality(fee_after) = cardinality(fee_amount) + 1)
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX active_session_id ON active_session (id);
CREATE UNIQUE INDEX active_session_idempotency ON active_session (client, idempotency_key);
CREATE INDEX active_session_over ON active_session (zone_code, vehicle_class, over_at);
CREATE INDEX active_session_released ON active_session (over_at) WHERE NOT counted;

-- What is over: inserted once, never changed.
CREATE TABLE parking_session (
    id                uuid NOT NULL,
    plate             text NOT NULL,
    vehicle_class     text NOT NULL,
    client            text NOT NULL,
    idempotency_key   text,
    zone_code         text NOT NULL,
    admission         text NOT NULL,
    started_at        timestamptz NOT NULL,
    minutes           integer,
    ends_at           timestamptz,
    over_at           timestamptz NOT NULL,   -- when its time was over, or would have been
    ended_at          timestamptz NOT NULL,
    ended_by          text NOT NULL CHECK (ended_by IN ('driver', 'expiry', 'restart')),
    received_at       timestamptz NOT NULL,
    payment_method    text NOT NULL,
    rate_version      text NOT NULL,
    fee               bigint NOT NULL CHECK (fee >= 0),
    stop_key          text,
    stop_requested_at timestamptz,
    PRIMARY KEY (id, started_at),
    CHECK (ended_at >= started_at)
) PARTITION BY RANGE (started_at);
CREATE INDEX parking_session_plate ON parking_session (plate, vehicle_class, started_at);
CREATE INDEX parking_session_idempotency ON parking_session (client, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX parking_session_client ON parking_session (client, id);
CREATE INDEX parking_session_zone ON parking_session (zone_code, vehicle_class, started_at);
-- Stays of more than a day are few (strict overstays); a report may have to find them in any month.
CREATE INDEX parking_session_long ON parking_session (ended_at) WHERE ended_at - started_at > interval '24 hours';
-- A month for which no partition was made in time still has a place to go.
CREATE TABLE parking_session_default PARTITION OF parking_session DEFAULT;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER parking_session_append_only BEFORE UPDATE OR DELETE ON parking_session
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TABLE parking_check (
    id                  uuid PRIMARY KEY,
    client              text NOT NULL,
    plate               text NOT NULL,
    vehicle_class       text,
    zone_code           text,
    verdict             text NOT NULL,
    reasons             text[] NOT NULL,
    session_id          uuid,
    expired_for_seconds integer,
    near_plates         text[] NOT NULL DEFAULT '{}',
    position            geometry(Point, 4326),
    accuracy            double precision CHECK (accuracy >= 0),
    captured_at         timestamptz NOT NULL,
    received_at         timestamptz NOT NULL
);
CREATE INDEX parking_check_plate ON parking_check (plate, captured_at);
CREATE INDEX parking_check_client ON parking_check (client, received_at);

-- For the POSTs that no row of their own protects (extend, quote, check).
CREATE TABLE idempotency_key (
    client       text NOT NULL,
    path         text NOT NULL,
    key          text NOT NULL,
    request_hash bytea NOT NULL,
    answer       bytea,
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (client, path, key)
);
CREATE INDEX idempotency_key_created ON idempotency_key (created_at);

INSERT INTO revision (name, value) VALUES ('zones', 1), ('rates', 1);
