-- Every series of numbers beside how many there are, and the highest. Each is there once, by the tables' own constraints.
SELECT COALESCE(s.name, n.name) || ' of ' || COALESCE(s.year, n.year) AS what,
       COALESCE(s.last, 0) AS last, COALESCE(n.issued, 0) AS issued, COALESCE(n.highest, 0) AS highest
  FROM number_series s
  FULL JOIN (SELECT 'receipt/' || r.district AS name, r.year, count(*) AS issued, max(r.number) AS highest
               FROM receipt r GROUP BY r.district, r.year
             UNION ALL
             SELECT 'einvoice', x.year, count(*), max(x.code_number) FROM einvoice x GROUP BY x.year) n
         ON n.name = s.name AND n.year = s.year
