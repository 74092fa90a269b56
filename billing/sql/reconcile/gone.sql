-- What was open and is not found any more was put right by somebody.
-- In: found; day, gateway, now.
UPDATE reconciliation_difference d SET state = 'explained', settled_at = %(now)s
 WHERE d.day = %(day)s AND d.gateway = %(gateway)s AND d.state = 'open'
   AND NOT EXISTS (SELECT FROM found f WHERE f.booking = d.booking AND f.reference = d.reference)
