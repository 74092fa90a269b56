-- The lines of a gateway that sent no list: the credits that we were told of at the time.
-- In: gateway; list_since, list_until. Out: rows of line.
INSERT INTO line
SELECT transaction_id, 'transfer', gateway || '/' || transaction_id, NULL, NULL, amount, 0, at, description
  FROM credit WHERE gateway = %(gateway)s AND at >= %(list_since)s AND at < %(list_until)s
