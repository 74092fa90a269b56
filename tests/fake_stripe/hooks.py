"""Webhooks of the fake Stripe: signed as Stripe signs them, sent when and as often as a test wants."""

import copy
import hashlib
import hmac
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

Event = dict[str, Any]
# Carries one body and its Stripe-Signature header to the subscriber; gives the status of the answer.
Post = Callable[[bytes, str], int]
ACCEPTED = range(200, 300)
SECRET = "whsec_test"


def sign(body: bytes, secret: str, at: float) -> str:
    """The Stripe-Signature header: HMAC-SHA256 over the time and the body."""
    signature = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()
    return f"t={int(at)},v1={signature}"


def http_post(url: str) -> Post:
    """A subscriber that listens at an address."""

    def post(body: bytes, header: str) -> int:
        headers = {"Stripe-Signature": header, "Content-Type": "application/json; charset=utf-8"}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            return refused.code
        except OSError:
            return 0

    return post


class Hooks:
    """Every event that happened, oldest first, and those that no subscriber has accepted yet.

    `when` is "held" (a test delivers by itself), "before" (before the request that caused it is answered) or "after"
    (once it is answered, from a thread).
    """

    def __init__(self, now: Callable[[], float], secret: str = SECRET) -> None:
        self.now, self.secret, self.when = now, secret, "held"
        self.post: Post | None = None
        self.events: list[Event] = []
        self.waiting: list[Event] = []
        self._lock = threading.Lock()

    def subscribe(self, post: Post, when: str = "held") -> None:
        self.post, self.when = post, when

    def emit(self, kind: str, about: dict[str, Any]) -> None:
        """Note an event, with its object as it is now."""
        number = len(self.events) + 1
        event = {
            "id": f"evt_{number:08d}", "object": "event", "type": kind, "created": int(self.now()), "livemode": False,
            "api_version": "2026-10-28.endive", "pending_webhooks": 1, "data": {"object": copy.deepcopy(about)},
        }  # fmt: skip
        self.events.append(event)
        self.waiting.append(event)

    def deliver(self, event: Event, times: int = 1, at: float | None = None) -> list[int]:
        """Send one event, signed now or at another time; the statuses of the answers."""
        assert self.post is not None, "nobody has subscribed"
        body = json.dumps(event).encode()
        answers = [self.post(body, sign(body, self.secret, at or self.now())) for _ in range(times)]
        if answers and answers[-1] in ACCEPTED:
            with self._lock:
                self.waiting = [one for one in self.waiting if one is not event]
        return answers

    def deliver_all(self, *, backwards: bool = False, times: int = 1) -> int:
        """Send what waits; the number of events that were accepted. Who is told may ask this account meanwhile."""
        with self._lock:
            taken, self.waiting = self.waiting, []
        refused = [one for one in taken[:: -1 if backwards else 1] if self.deliver(one, times)[-1] not in ACCEPTED]
        with self._lock:
            self.waiting = [one for one in taken if one in refused] + self.waiting
        return len(taken) - len(refused)
