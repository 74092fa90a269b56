-- What a session owes when it ends at an instant, by the price agreed at its start.
-- Out: integer VND; NULL where the stay is longer than what was priced so far (the caller prices on and tries again).
-- A rate that refunds nothing charges at least to the end of the time that was paid for.
CREATE OR REPLACE FUNCTION agreed_fee(s active_session, p_ended_at timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT s.fee_amount[width_bucket(
        (extract(epoch FROM CASE WHEN s.refund = 'none' THEN GREATEST(p_ended_at, s.ends_at) ELSE p_ended_at END - s.started_at)
            * 1000000)::bigint,
        s.fee_after)]
$$;
