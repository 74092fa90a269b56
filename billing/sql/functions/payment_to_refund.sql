-- The payment by card of which a refund of a session is asked: the one that was picked when it was ordered, else the largest.
-- In:  the session, and the refund (NULL: one that is not ordered yet). Out: the payment; NULL where no card has paid.
CREATE OR REPLACE FUNCTION payment_to_refund(p_session uuid, p_refund uuid) RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT p.id FROM payment p
     WHERE p.session_id = p_session AND p.purpose = 'session' AND p.method = 'card' AND p.state = 'paid'
     ORDER BY p.id = (SELECT payment_id FROM refund WHERE id = p_refund) DESC NULLS LAST, p.paid DESC, p.id
     LIMIT 1
$$;
