-- Record what sessions that have just ended owe, in the transaction that ends them.
-- In:  pairwise: the sessions, their clients and payment methods, the amounts in VND, and when each became due.
-- Out: a row for each session that owes something: its id and that of its payment.
-- One session has one payment: a second call for it fails (payment_session_id_key), for a session ends once.
-- PL/pgSQL, because it keeps its plan: a function in SQL is planned anew each time, which cost a lone stop a third more.
CREATE OR REPLACE FUNCTION record_due(
    p_sessions uuid[], p_clients text[], p_methods text[], p_amounts bigint[], p_due_at timestamptz[]
) RETURNS TABLE (session_id uuid, payment_id uuid) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        INSERT INTO payment (id, session_id, client, method, amount, currency, state, created_at)
        SELECT gen_random_uuid(), d.session_id, d.client, d.method, d.amount, 'VND', 'due', d.due_at
          FROM unnest(p_sessions, p_clients, p_methods, p_amounts, p_due_at) d(session_id, client, method, amount, due_at)
         WHERE d.amount > 0
        RETURNING session_id, id;
END
$$;
