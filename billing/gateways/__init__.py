"""Where money comes from: one small class a payment rail, none of them known outside `billing`."""

# wallet: prepaid. card: Stripe. vietqr: a bank transfer by QR code. vnpay: its own page. cash: an attendant takes it.
# free: nothing is owed, whatever the stay (free minutes, a rate of zero).
METHODS = ("wallet", "card", "vietqr", "vnpay", "cash", "free")
