-- Every account.
SELECT a.code AS what FROM ledger_account a
