-- The bookings by name.
-- In: booked. Out: ours, a row each name: VND in all, and on the day.
CREATE TEMPORARY TABLE ours ON COMMIT DROP AS
SELECT booking, name, sum(amount)::bigint AS amount, COALESCE(sum(amount) FILTER (WHERE is_today), 0)::bigint AS today,
       bool_or(is_today) AS is_today, min(at) AS at
  FROM booked GROUP BY booking, name
