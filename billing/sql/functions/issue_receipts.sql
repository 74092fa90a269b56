-- Issue receipts of one district, and their e-invoices, with the next numbers of its series. Those that are issued already
-- are left out, so two who issue the same at once issue it once.
-- In:  the district, the year (Hanoi's, of p_now), the e-invoices' form and series, the instant, and a JSON array of
--      {id, kind, client, session_id, corrects, charged_at, amount, vat, content}, in which order does not matter: numbers
--      follow the time of the charge (the id holds it).
-- Out: the number issued.
-- A function in PL/pgSQL: whoever waited for the series sees in his next statement what the other issued.
CREATE OR REPLACE FUNCTION issue_receipts(
    p_district text, p_year integer, p_sign text, p_now timestamptz, p_drafts json
) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_series number_series;
    v_codes number_series;
    v_at timestamptz;
    v_issued integer;
BEGIN
    -- Around a New Year two may issue the same in two years' series: so the district is what they wait for.
    PERFORM pg_advisory_xact_lock(hashtext('receipt'), hashtext(p_district));
    v_series := lock_series('receipt/' || p_district, p_year, p_now);
    v_at := GREATEST(p_now, v_series.last_at);
    INSERT INTO receipt (id, kind, district, year, number, client, session_id, corrects, charged_at, issued_at, amount, vat, content)
        SELECT d.id, d.kind, p_district, p_year, v_series.last + row_number() OVER (ORDER BY d.id), d.client, d.session_id,
               d.corrects, d.charged_at, v_at, d.amount, d.vat, d.content
          FROM json_to_recordset(p_drafts) d(id uuid, kind text, client text, session_id uuid, corrects uuid,
                                             charged_at timestamptz, amount bigint, vat bigint, content json)
         WHERE NOT EXISTS (SELECT FROM receipt r WHERE r.id = d.id);
    GET DIAGNOSTICS v_issued = ROW_COUNT;
    IF v_issued > 0 THEN
        v_codes := lock_series('einvoice', p_year, p_now);
        INSERT INTO einvoice (id, sign, number, code_number, year, next_try_at)
            SELECT r.id, p_sign, r.number, v_codes.last + row_number() OVER (ORDER BY r.number), p_year, v_at
              FROM receipt r WHERE r.district = p_district AND r.year = p_year AND r.number > v_series.last;
        UPDATE number_series s SET last = s.last + v_issued, last_at = GREATEST(s.last_at, v_at)
         WHERE s.year = p_year AND s.name IN (v_series.name, v_codes.name);
    END IF;
    RETURN v_issued;
END
$$;

-- The row of a series, made where it is missing, locked until the transaction ends.
CREATE OR REPLACE FUNCTION lock_series(p_name text, p_year integer, p_now timestamptz) RETURNS number_series LANGUAGE plpgsql
AS $$
DECLARE
    v_series number_series;
BEGIN
    INSERT INTO number_series (name, year, last_at) VALUES (p_name, p_year, p_now) ON CONFLICT DO NOTHING;
    SELECT * INTO STRICT v_series FROM number_series s WHERE s.name = p_name AND s.year = p_year FOR UPDATE;
    RETURN v_series;
END
$$;
