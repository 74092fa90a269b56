"""Receipts: one for each charge, numbered without a gap, never changed; a refund gives a credit note."""
