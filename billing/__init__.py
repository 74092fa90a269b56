"""What is owed: rates, payments, gateways."""
