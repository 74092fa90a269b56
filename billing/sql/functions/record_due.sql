-- Record what a session that has just ended owes, in the transaction that ends it.
-- In:  the session, its client and payment method, the amount in VND, and when it became due.
-- Out: the id of the payment; NULL where nothing is owed.
-- One session has one payment: a second call for it fails (payment_session_id_key), for a session ends once.
CREATE OR REPLACE FUNCTION record_due(
    p_session_id uuid, p_client text, p_method text, p_amount bigint, p_due_at timestamptz
) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    v_id uuid;
BEGIN
    IF p_amount > 0 THEN
        INSERT INTO payment (id, session_id, client, method, amount, currency, state, created_at)
        VALUES (gen_random_uuid(), p_session_id, p_client, p_method, p_amount, 'VND', 'due', p_due_at)
        RETURNING id INTO v_id;
    END IF;
    RETURN v_id;
END
$$;
