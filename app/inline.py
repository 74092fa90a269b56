"""Stripe as the threads of requests may ask it: a few at a time, and while it is silent one in a while, for all.

A driver is told what became of his card, so his thread waits for Stripe. A Stripe that accepts and says nothing holds
that thread until a time-out: as many starts by card as there are threads, and nobody is served, whatever he asks
(measured on 4 threads, with 8 starts by card: 40 s for a start that a wallet pays). So at most a quarter of a process's
threads waits at a time (the bulkhead), and after one of them waited in vain none does for a while, but one that tries
(the circuit breaker).

Who may not wait is told so at once, and nothing is sent: a hold or a charge is left to the job (app/card_jobs.py), and
its driver hears the same as where Stripe gave no answer. The jobs ask as they like: nobody waits for them.
"""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from billing.errors import GatewayNotAsked, GatewayUnavailable
from billing.gateways import Card, Demand, Movement
from billing.gateways.stripe import Stripe

# One in so many threads of a process may wait.
SHARE = 4
# Real seconds that an answer may take: as long as the other waits of a request at most (see lock_timeout_seconds). The
# jobs have longer.
READ_SECONDS = 5.0
# What fails sooner (a refused connection, an error of Stripe's own) has held up nobody, and is no reason to rest.
IN_VAIN_SECONDS = 1.0
# From a wait in vain to the next try. So much later than Stripe itself its answers are back.
REST_SECONDS = 5.0


class Bulkhead:
    """Lets so many threads wait for a gateway; while it is silent, one in a while."""

    def __init__(self, seats: int) -> None:
        self._seats = threading.BoundedSemaphore(seats)
        self._lock = threading.Lock()
        self._next_try = 0.0  # monotonic; 0: it answers, infinite: somebody is trying

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what waits for the gateway. Raises GatewayNotAsked, at once, where the caller may not."""
        if not self._seats.acquire(blocking=False):
            raise GatewayNotAsked("others wait for the payment service")
        try:
            with self._watched():
                yield
        finally:
            self._seats.release()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        self._check()
        began, in_vain = time.monotonic(), False
        try:
            yield
        except GatewayUnavailable:
            in_vain = time.monotonic() - began >= IN_VAIN_SECONDS
            raise
        finally:
            self._next_try = time.monotonic() + REST_SECONDS if in_vain else 0.0

    def _check(self) -> None:
        """Pass; where it is silent, as the one who tries."""
        with self._lock:
            if time.monotonic() < self._next_try:
                raise GatewayNotAsked("the payment service gave no answer a moment ago")
            if self._next_try:
                self._next_try = math.inf


class InlineStripe(Stripe):
    """Stripe, with what requests ask of it behind a bulkhead: all of these may also raise GatewayNotAsked."""

    def __init__(self, key: str, url: str | None, minimum: int, threads: int) -> None:
        """`threads`: how many a process has for requests."""
        super().__init__(key, url, minimum, READ_SECONDS)
        self.bulkhead = Bulkhead(max(1, threads // SHARE))

    def keep_card(self, client: str, token: str, key: str) -> Card:
        """A driver keeps a card."""
        with self.bulkhead.waiting():
            return super().keep_card(client, token, key)

    def hold(self, demand: Demand, card: Card) -> Movement:
        """A session starts."""
        with self.bulkhead.waiting():
            return super().hold(demand, card)

    def charge(self, demand: Demand, card: Card, *, present: bool = True) -> Movement:
        """A driver pays."""
        with self.bulkhead.waiting():
            return super().charge(demand, card, present=present)

    def find(self, gateway_reference: str) -> Movement:
        """A driver looks what he must still do."""
        with self.bulkhead.waiting():
            return super().find(gateway_reference)
