-- Which part of what is earned is the city's, and what was booked of it for each district and day.
-- Down: drop table city_share_day, city_share_rate; and give ledger_account.kind the check of 0005 again (once no account is of
-- the new kind).

-- The city's part of the revenue without VAT, in hundredths of a percent, from a day of Hanoi on; before the first: nothing.
CREATE TABLE city_share_rate (
    valid_from   date PRIMARY KEY,
    basis_points integer NOT NULL CHECK (basis_points BETWEEN 0 AND 10000),
    source       text NOT NULL CHECK (source IN ('decree', 'proposed', 'assumed'))
);
-- The one figure that was published: 30 %, as a proposal. That it was decided, and since when, is not known; the day is that from
-- which the shipped prices hold.
INSERT INTO city_share_rate VALUES ('2018-01-01', 3000, 'proposed');

-- A row for each day from the first that earned something on, and each district that has earned anything by the time it is made:
-- what the share was worked out from. The last day is how far the booking has come.
CREATE TABLE city_share_day (
    district     text NOT NULL,
    day          date NOT NULL,
    revenue      bigint NOT NULL,    -- VND without VAT that moved on the day: below 0 where more was given back than earned
    basis_points integer NOT NULL,   -- the rate of the day
    share        bigint NOT NULL,    -- VND booked to city_share as `<district>/<day>`; 0: nothing
    PRIMARY KEY (district, day)
);
CREATE INDEX city_share_day_day ON city_share_day (day);
CREATE TRIGGER city_share_day_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON city_share_day
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Another kind of account: what the city's share costs us, by district. It is not validated: all there is keeps the narrower check
-- that it takes the place of.
ALTER TABLE ledger_account DROP CONSTRAINT ledger_account_kind_check;
ALTER TABLE ledger_account ADD CONSTRAINT ledger_account_kind_check CHECK (
    kind IN ('wallet', 'receivable', 'clearing', 'bank', 'revenue', 'vat', 'city_share', 'city_share_cost', 'float', 'refund', 'fee',
             'cash_difference', 'funding')) NOT VALID;
