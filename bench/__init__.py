"""How fast the service is, measured beside references on the same machine at the same time. No part of the product."""
