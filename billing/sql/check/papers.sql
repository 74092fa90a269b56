-- Every receipt and credit note beside its e-invoice (or NULL); of a note, whether it corrects the receipt of its own session.
SELECT r.kind || ' ' || r.id AS what, r.kind, r.number, x.number AS invoice_number,
       CASE WHEN r.corrects IS NOT NULL THEN EXISTS (
            SELECT FROM receipt c WHERE c.id = r.corrects AND c.kind = 'receipt' AND c.session_id = r.session_id) END AS corrects_its_own
  FROM receipt r
  LEFT JOIN einvoice x ON x.id = r.id
