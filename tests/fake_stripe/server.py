"""A fake Stripe that listens on a port of this machine: keys, faults, webhooks, one thread a call.

with StripeServer() as stripe:
    gateway = Stripe(stripe.key, stripe.url)
    stripe.fail("POST", "/v1/payment_intents", "reset_after")     # the next one: charged, and no answer
    stripe.hooks.subscribe(http_post("http://…/v1/webhooks/stripe"), when="after")
"""

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from tests.fake_stripe.books import Books, Object
from tests.fake_stripe.cards import ApiError
from tests.fake_stripe.hooks import SECRET, Hooks

KEY = "sk_test_fake"
# Each fault: is the request carried out, what is answered (None: the connection is reset), is that kept under its key?
FAULTS = {
    "reset_before": (False, None, False),
    "reset_after": (True, None, True),
    "hang": (True, None, True),
    "429": (False, 429, False),
    "409": (False, 409, False),
    "503": (False, 503, False),
    "500_before": (False, 500, True),
    "500_after": (True, 500, True),
}
ERRORS = {
    429: {"type": "invalid_request_error", "code": "rate_limit", "message": "Too many requests"},
    409: {"type": "idempotency_error", "code": "idempotency_key_in_use", "message": "Another request has this key"},
    500: {"type": "api_error", "message": "Something went wrong on Stripe's end"},
    503: {"type": "api_error", "message": "Stripe is not available"},
}
ID = r"([^/]+)"
# Checks a method, an address and a body against Stripe's own schemas; raises AssertionError.
Check = Callable[[str, str, str], Any]
ROUTES: list[tuple[str, str, Callable[..., Object]]] = [
    ("POST", "/v1/customers", Books.create_customer),
    ("POST", f"/v1/payment_methods/{ID}/attach", Books.attach),
    ("POST", "/v1/payment_intents", Books.create_intent),
    ("POST", f"/v1/payment_intents/{ID}/confirm", Books.confirm_intent),
    ("POST", f"/v1/payment_intents/{ID}/capture", Books.capture),
    ("POST", f"/v1/payment_intents/{ID}/cancel", Books.cancel),
    ("POST", "/v1/refunds", Books.refund),
    ("GET", "/v1/payment_intents", lambda books, params: books.page("payment_intent", params)),
    ("GET", f"/v1/payment_intents/{ID}", lambda books, id_, _: books.get(id_, "payment_intent")),
    ("GET", "/v1/refunds", lambda books, params: books.page("refund", params, by="payment_intent")),
    ("GET", f"/v1/refunds/{ID}", lambda books, id_, _: books.get(id_, "refund")),
    ("GET", "/v1/balance_transactions", lambda books, params: books.page("balance_transaction", params)),
]


@dataclass
class Call:
    """A request as it came."""

    method: str
    path: str
    query: str
    body: str
    key: str | None
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    params: dict[str, Any] = field(default_factory=dict)


@dataclass
class Answer:
    """What is sent back; no status: the connection is reset, after so many seconds of silence."""

    status: int | None
    body: Object = field(default_factory=dict)
    replayed: bool = False
    silence: float = 0.0


def read_form(text: str) -> dict[str, Any]:
    """a[b]=1&c[]=2&c[0]=3 as {"a": {"b": "1"}, "c": ["2", "3"]}: as deep as the requests here go."""
    read: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        parts = re.match(r"([^[]+)(?:\[([^]]*)\])?$", name)
        assert parts is not None, f"nested deeper than is played here: {name}"
        outer, inner = parts.groups()
        if inner is None:
            read[outer] = value
        elif inner == "" or inner.isdigit():
            read.setdefault(outer, []).append(value)
        else:
            read.setdefault(outer, {})[inner] = value
    return read


class StripeServer:
    """One account. `calls` are all requests that came, `violations` those that Stripe's own schemas refuse."""

    def __init__(self, check: Check | None = None, key: str = KEY, secret: str = SECRET, port: int = 0) -> None:
        self.key, self._check, self._ahead = key, check, 0.0
        self.hooks = Hooks(self.now, secret)
        self.books = Books(self.now, self.hooks.emit)
        self.calls: list[Call] = []
        self.violations: list[str] = []
        self.silence = 2.0  # how long a `hang` says nothing before it hangs up
        self._faults: list[tuple[str, re.Pattern[str], str]] = []
        self._answers: dict[str, tuple[tuple[str, str], Answer]] = {}
        self._lock = threading.RLock()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def now(self) -> float:
        return time.time() + self._ahead

    def advance(self, seconds: float) -> None:
        """Let time pass at Stripe; holds expire."""
        with self._lock:
            self._ahead += seconds
            self.books.expire_holds()

    def fail(self, method: str, path: str, fault: str, times: int = 1) -> None:
        """Let the next `times` requests fail, whose path the pattern `path` matches as a whole; see FAULTS."""
        assert fault in FAULTS
        self._faults += [(method, re.compile(path), fault)] * times

    def forget_keys(self) -> None:
        """Stripe forgets idempotency keys after a day."""
        self._answers.clear()

    def asked(self, method: str, path: str) -> list[Call]:
        """The requests so far to paths that match."""
        return [call for call in self.calls if call.method == method and re.fullmatch(path, call.path)]

    # --- one request ----------------------------------------------------------------------------------------------
    def handle(self, call: Call) -> Answer:
        """The answer to a request, with the events that it caused sent before it where a test wants that."""
        with self._lock:
            self.calls.append(call)
            self.books.expire_holds()
            answer = self._refused(call) or self._once(call)
        if self.hooks.when == "before":
            self.hooks.deliver_all()
        return answer

    def _refused(self, call: Call) -> Answer | None:
        if call.headers.get("authorization") != f"Bearer {self.key}":
            return _error(401, {"type": "invalid_request_error", "message": "Invalid API Key provided"})
        try:
            if self._check is not None:
                self._check(call.method, f"{call.path}?{call.query}", call.body)
            call.params = read_form(call.query if call.method == "GET" else call.body)
        except AssertionError as wrong:
            self.violations.append(str(wrong))
            return _error(400, {"type": "invalid_request_error", "message": str(wrong)})
        return None

    def _once(self, call: Call) -> Answer:
        """Carry a request out; where its key was seen, the first answer again, or a refusal."""
        known = self._answers.get(call.key or "")
        if known and known[0] != (call.path, call.body):
            text = "Keys for idempotent requests can only be used with the same parameters they were first used with."
            return _error(400, {"type": "idempotency_error", "message": text})
        if known:
            return Answer(known[1].status, known[1].body, replayed=True)
        return self._run(call)

    def _run(self, call: Call) -> Answer:
        fault = self._next_fault(call)
        done, status, kept = FAULTS[fault] if fault else (True, 200, True)
        answer = self._do(call) if done else Answer(None)
        failed = _error(status, ERRORS[status]) if status in ERRORS else None
        if call.key and kept:
            self._answers[call.key] = ((call.path, call.body), failed or answer)
        if status is None:
            return Answer(None, silence=self.silence if fault == "hang" else 0.0)
        return failed or answer

    def _next_fault(self, call: Call) -> str | None:
        for wanted in self._faults:
            if wanted[0] == call.method and wanted[1].fullmatch(call.path):
                self._faults.remove(wanted)
                return wanted[2]
        return None

    def _do(self, call: Call) -> Answer:
        for method, pattern, verb in ROUTES:
            found = re.fullmatch(pattern, call.path)
            if found and method == call.method:
                try:
                    made = verb(self.books, *found.groups(), call.params)
                    return Answer(200, self.books.expanded(made, call.params.get("expand", [])))
                except ApiError as refused:
                    return _error(refused.status, refused.error)
        return _error(404, {"type": "invalid_request_error", "message": f"Unrecognized request URL {call.path}"})


def _error(status: int, error: Object) -> Answer:
    return Answer(status, {"error": error})


def _handler(server: StripeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            url = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            call = Call(self.command, url.path, url.query, body, headers.get("idempotency-key"), headers)
            answer = server.handle(call)
            if answer.status is None:
                self._reset(answer.silence)
            else:
                self._send(answer.status, answer)
            if server.hooks.when == "after":
                server.hooks.deliver_all()

        def _send(self, status: int, answer: Answer) -> None:
            body = json.dumps(answer.body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Request-Id", f"req_{len(server.calls):08d}")
            if answer.replayed:
                self.send_header("Idempotent-Replayed", "true")
            self.end_headers()
            self.wfile.write(body)

        def _reset(self, silence: float) -> None:
            """Say nothing for a while, then hang up without a goodbye."""
            time.sleep(silence)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    return Handler
