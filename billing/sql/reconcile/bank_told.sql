-- The lines of a bank that gave no statement: what operators said it sent.
-- In: list_since, list_until. Out: rows of line.
INSERT INTO line
SELECT id::text, 'withdrawal_paid', id::text, NULL, bank_reference, -amount, 0, decided_at, account_holder
  FROM withdrawal WHERE state = 'paid' AND decided_at >= %(list_since)s AND decided_at < %(list_until)s
