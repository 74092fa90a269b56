-- A UUID that is not above any UUIDv7 of the instant, and above all before it.
CREATE OR REPLACE FUNCTION least_id(p_at timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT rpad(lpad(to_hex((extract(epoch FROM p_at) * 1000)::bigint), 12, '0'), 32, '0')::uuid
$$;

-- What a district earned on a day of Hanoi, without VAT: what moved on its account of revenue. Ids are of their instants, so a day's
-- entries of an account lie together.
-- In:  the district's code, the day. Out: VND; below 0 where more was given back than earned.
CREATE OR REPLACE FUNCTION net_revenue(p_district text, p_day date) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT COALESCE(-sum(e.amount), 0)::bigint
      FROM ledger_account a
      JOIN ledger_entry e ON e.account_id = a.id
       AND e.transaction_id >= least_id(p_day::timestamp AT TIME ZONE 'Asia/Ho_Chi_Minh')
       AND e.transaction_id < least_id((p_day + 1)::timestamp AT TIME ZONE 'Asia/Ho_Chi_Minh')
     WHERE a.code = 'revenue/' || p_district || '/iparking'
$$;

-- The city's part of VND × basis points, summed: rounded half up to whole VND.
CREATE OR REPLACE FUNCTION city_share_of(p_parts numeric) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT floor((p_parts + 5000) / 10000)::bigint
$$;
