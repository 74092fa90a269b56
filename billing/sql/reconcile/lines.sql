-- The lines of one gateway's list, as they were read.
CREATE TEMPORARY TABLE line (
    id text, booking text, name text, reference text, source text, amount bigint, fee bigint, at timestamptz, description text
) ON COMMIT DROP
