-- The shifts themselves: those that were opened on the day and not closed on it, what was counted too much or too little, and
-- those whose own row disagrees with their movements.
-- In: since, until; least_id, bound_id. Out: more rows of found.
INSERT INTO found
WITH shifts AS (
    SELECT s.*, s.opening + (SELECT COALESCE(sum(m.amount), 0) FROM cash_movement m
                              WHERE m.shift_id = s.id AND (s.closed_at < %(until)s OR m.at < %(until)s))::bigint AS in_hand
      FROM shift s
     WHERE s.closed_at >= %(since)s AND s.closed_at < %(until)s
        OR s.id >= %(least_id)s AND s.id < %(bound_id)s AND (s.closed_at IS NULL OR s.closed_at >= %(until)s)
)
SELECT 'shift', id::text, NULL, NULL, in_hand, opened_at, id::text, NULL::uuid, attendant, 'shift_open', closed_at IS NOT NULL, true
  FROM shifts WHERE closed_at IS NULL OR closed_at >= %(until)s
UNION ALL
SELECT 'shift', id::text, counted, in_hand, counted - in_hand, closed_at, id::text, NULL, attendant, 'cash_difference', true, true
  FROM shifts WHERE closed_at < %(until)s AND counted <> in_hand
UNION ALL
SELECT 'shift_row', id::text, in_hand, expected, in_hand - expected, closed_at, id::text, NULL, attendant, 'shift_row', false, true
  FROM shifts WHERE closed_at < %(until)s AND expected <> in_hand
