-- For which sessions a driver owes, oldest first. What was paid for one session is taken off that one; all else that was paid
-- goes to the oldest first. What was given back on a gateway's page, and was spent already, is a debt of its own, for no session.
-- In:  the driver, and the VND that his wallet's row says he owes.
-- Out: the session (none: given back on a page, or something else that a void or refund left), VND, and since when it is owed;
--      together at most p_owed.
CREATE OR REPLACE FUNCTION debts_of(p_owner text, p_owed bigint) RETURNS TABLE (session_id uuid, amount bigint, since timestamptz)
LANGUAGE sql STABLE AS $$
WITH booked AS (
    SELECT CASE COALESCE(o.kind, t.kind) WHEN 'given_back' THEN COALESCE(o.reference, t.reference)
           ELSE split_part(COALESCE(o.reference, t.reference), '/', 1) END AS name, t.id, t.at, t.kind, e.amount
      FROM ledger_account a
      JOIN ledger_entry e ON e.account_id = a.id
      JOIN ledger_transaction t ON t.id = e.transaction_id
      LEFT JOIN ledger_transaction o ON o.id = t.reverses
     WHERE a.code = 'receivable/' || p_owner AND COALESCE(o.kind, t.kind) IN ('parking', 'refund', 'void', 'given_back')
), paid AS (
    SELECT p.session_id::text AS name, sum(p.paid) AS amount FROM payment p
     WHERE p.client = p_owner AND p.purpose = 'session' AND p.state = 'paid' GROUP BY p.session_id
), of_session AS (
    SELECT b.name, min(b.at) FILTER (WHERE b.kind IN ('parking', 'given_back')) AS since, min(b.id::text) AS first,
           GREATEST(sum(b.amount) - COALESCE(max(p.amount), 0), 0) AS amount
      FROM booked b LEFT JOIN paid p USING (name) GROUP BY b.name
), summed AS (
    SELECT s.*, sum(s.amount) OVER (ORDER BY s.first) AS upto, sum(s.amount) OVER () AS whole FROM of_session s
)
SELECT CASE WHEN s.name ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN s.name::uuid END,
       LEAST(s.amount, GREATEST(s.upto - s.whole + p_owed, 0))::bigint, s.since
  FROM summed s WHERE LEAST(s.amount, GREATEST(s.upto - s.whole + p_owed, 0)) > 0 ORDER BY s.first
$$;
