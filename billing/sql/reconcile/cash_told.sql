-- The lines of attendants' shifts: each movement of cash, and by how much what was counted at the end differs from what the
-- movements leave.
-- In: list_since, list_until. Out: rows of line.
INSERT INTO line
SELECT id, booking, name, NULL, shift, amount, 0, at, NULL
  FROM (SELECT 'movement/' || m.id AS id, 'cash_' || m.kind AS booking, s.attendant || '/' || m.session_id AS name, s.id::text AS shift,
               m.amount, m.at
          FROM cash_movement m JOIN shift s ON s.id = m.shift_id
         WHERE m.at >= %(list_since)s AND m.at < %(list_until)s
        UNION ALL
        SELECT 'shift/' || s.id, 'cash_shift', s.id::text, s.id::text,
               s.counted - s.opening - (SELECT COALESCE(sum(m.amount), 0) FROM cash_movement m WHERE m.shift_id = s.id)::bigint, s.closed_at
          FROM shift s WHERE s.closed_at >= %(list_since)s AND s.closed_at < %(list_until)s) moved
 WHERE amount <> 0
