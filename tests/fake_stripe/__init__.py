"""A stateful fake of Stripe for tests, demos and benches: an HTTP server of our own, on a port of this machine.

books.py holds the payments and their rules, cards.py the test cards, hooks.py the webhooks, server.py the rest.
"""

from tests.fake_stripe.hooks import http_post, sign
from tests.fake_stripe.server import StripeServer

__all__ = ["StripeServer", "http_post", "sign"]
