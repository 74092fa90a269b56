-- The months of parking_session that were archived, or are about to be.
-- Down: drop table archived_month (restore what is archived first).

CREATE TABLE archived_month (
    month       date PRIMARY KEY CHECK (extract(day FROM month) = 1),  -- a Hanoi month
    state       text NOT NULL CHECK (state IN ('archived', 'restored')),
    file        text NOT NULL,               -- its name in the archive's folder
    file_sha256 text NOT NULL,
    rows        bigint NOT NULL CHECK (rows >= 0),
    checksum    numeric NOT NULL,            -- the sum of all rows' hashes
    archived_at timestamptz NOT NULL,
    restored_at timestamptz,
    CHECK ((state = 'restored') = (restored_at IS NOT NULL))
);
