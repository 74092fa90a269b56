-- In which zones a vehicle may stand by its rights at an instant (zones/rights.py).
-- In:  the vehicle; the zones in question, nearest first; the instant.
-- Out: those zones, each with its place among them. One in which several rights hold comes several times.
-- Called by check_vehicles, whose settings let the planner do nothing but look rows up. In PL/pgSQL, so that its plan is made
-- ready only for who is asked about: most checks find a session that pays, and call nothing.
CREATE OR REPLACE FUNCTION rights_at(p_plate text, p_class text, p_zones text[], p_at timestamptz) RETURNS TABLE (
    zone_code text, nearness integer
) LANGUAGE plpgsql STABLE ROWS 1 AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT z.zone_code, z.nearness::integer
          FROM parking_right r
         CROSS JOIN unnest(p_zones) WITH ORDINALITY z(zone_code, nearness)
         WHERE r.plate = p_plate AND r.vehicle_class = p_class
           AND r.valid_from <= p_at AND LEAST(r.valid_until, r.revoked_at) > p_at
           AND (r.zone_code = z.zone_code OR COALESCE(r.zone_code, r.district_code) IS NULL
                OR r.district_code = (SELECT c.district_code FROM zone c WHERE c.code = z.zone_code AND c.valid_to IS NULL));
END
$$;
