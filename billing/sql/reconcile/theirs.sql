-- The lines by the names that the ledger has, or should have, for them.
-- A line that is on two pages of a list, because others came meanwhile, is one line. Of several charges for one payment the first
-- is the one that the payment names, else the oldest: the others are named after themselves.
-- In: line; gateway; since, until (the day). Out: theirs, a row each name: VND in all, and on the day.
CREATE TEMPORARY TABLE theirs ON COMMIT DROP AS
WITH once AS (
    SELECT DISTINCT ON (id) * FROM line ORDER BY id
), known AS (
    SELECT o.*, o.at >= %(since)s AND o.at < %(until)s AS is_today, p.id AS payment_id, p.reference AS ours,
           o.booking = 'payment' AND p.id IS NOT NULL AND o.source IS DISTINCT FROM p.gateway_reference
           AND (p.state = 'paid' AND p.gateway_reference IS NOT NULL OR row_number() OVER (
                PARTITION BY p.id, o.booking ORDER BY (o.source = p.gateway_reference) DESC NULLS LAST, o.at, o.id) > 1) AS is_second
      FROM once o LEFT JOIN LATERAL (
           SELECT * FROM payment r WHERE o.booking IN ('payment', 'refund') AND r.reference = o.reference
           UNION ALL
           SELECT * FROM payment s WHERE o.booking IN ('payment', 'refund') AND s.gateway_reference = o.source LIMIT 1) p ON true
), named AS (
    SELECT *, COALESCE(name, CASE WHEN is_second THEN ours || '/' || source ELSE ours END,
                       %(gateway)s || '/' || COALESCE(source, id)) AS full_name
      FROM known
)
SELECT booking, full_name AS name, sum(amount)::bigint AS amount, COALESCE(sum(amount) FILTER (WHERE is_today), 0)::bigint AS today,
       bool_or(is_today) AS is_today, bool_or(is_second) AS is_second, min(at) AS at, min(source) AS source,
       min(payment_id::text)::uuid AS payment_id, min(description) AS description
  FROM named GROUP BY booking, full_name
