-- Where a vehicle may stand by its rights at an instant (zones/rights.py).
-- In:  the vehicle; the zones in question, nearest first; the instant.
-- Out: which of those zones (from 1) is the nearest in which a right holds; NULL where none does.
-- Called by check_vehicles, whose settings let the planner do nothing but look rows up. Most vehicles have no right: one look
-- at an index tells.
CREATE OR REPLACE FUNCTION right_in(p_plate text, p_class text, p_zones text[], p_at timestamptz) RETURNS integer
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM parking_right r WHERE r.plate = p_plate AND r.vehicle_class = p_class AND r.valid_until > p_at) THEN
        RETURN NULL;
    END IF;
    RETURN (
        SELECT min(z.nearness)
          FROM parking_right r
         CROSS JOIN unnest(p_zones) WITH ORDINALITY z(zone_code, nearness)
         WHERE r.plate = p_plate AND r.vehicle_class = p_class
           AND r.valid_from <= p_at AND LEAST(r.valid_until, r.revoked_at) > p_at
           AND (r.zone_code = z.zone_code OR COALESCE(r.zone_code, r.district_code) IS NULL
                OR r.district_code = (SELECT c.district_code FROM zone c WHERE c.code = z.zone_code AND c.valid_to IS NULL)));
END
$$;
