-- Keep the idempotency key of a plate check on the check itself: a key of its own table costs three statements more.
-- Down: drop the two columns; create index parking_check_client on parking_check (client, received_at).

ALTER TABLE parking_check
    ADD COLUMN idempotency_key text,
    ADD COLUMN request_hash    bytea,
    ADD CHECK ((idempotency_key IS NULL) OR (request_hash IS NOT NULL));
CREATE UNIQUE INDEX parking_check_idempotency ON parking_check (client, idempotency_key) WHERE idempotency_key IS NOT NULL;
-- Nothing reads a client's checks in order.
DROP INDEX parking_check_client;
