"""The fake Stripe as a process of its own: python -m tests.fake_stripe PORT [WEBHOOK_ADDRESS], until it is ended.

Serve with IPARKING_STRIPE_KEY=sk_test_fake IPARKING_STRIPE_URL=http://127.0.0.1:PORT
IPARKING_STRIPE_WEBHOOK_SECRET=whsec_test.
"""

import signal
import sys

from tests.fake_stripe import StripeServer, http_post


def main(port: int, hook: str | None = None) -> None:
    """Serve, and send each event to `hook` once the request that caused it is answered."""
    with StripeServer(port=port) as stripe:
        if hook:
            stripe.hooks.subscribe(http_post(hook), when="after")
        print(f"{stripe.url} key={stripe.key} secret={stripe.hooks.secret}", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
