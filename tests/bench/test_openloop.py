"""The open-loop client: due instants do not wait for answers, and latencies count from them."""

import socketserver
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import openloop, requests
from bench.errors import BenchError
from zones import plates

STALL_SECONDS = 0.4


class Stalling(socketserver.StreamRequestHandler):
    """Answers 201 at once, but nobody while the first request of all is being answered."""

    lock = threading.Lock()
    stalled = False

    def handle(self) -> None:
        while (line := self.rfile.readline()) and (path := line.split()[1]):
            while self.rfile.readline().strip():
                pass
            with self.lock:
                if not type(self).stalled:
                    type(self).stalled = True
                    time.sleep(STALL_SECONDS)
            if path == b"/lost":
                return
            status = 409 if path == b"/refused" else 201
            self.wfile.write(f"HTTP/1.1 {status} X\r\nContent-length: 2\r\n\r\n".encode() + b"{}")
            if path == b"/gone":
                return


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = openloop.CONNECTIONS


@pytest.fixture
def url() -> Iterator[str]:
    Stalling.stalled = False
    with Server(("127.0.0.1", 0), Stalling) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_stall_is_seen_by_all_requests_that_were_due_in_it(url: str) -> None:
    """Due every 10 ms; the server stands still for the first 400 ms: a closed loop would see that once.

    due      0   10   20 … 390 | 400 …
    latency  400 390  380 … 10 |   0
    """
    due = [n / 100 for n in range(60)]
    timings = openloop.run(url, due, lambda n: requests.get(url, "/"))
    assert len(timings.latencies) == 60
    for n in range(30):
        assert timings.latencies[n] >= STALL_SECONDS - due[n] - 0.05
    assert timings.latency_ms(50) >= 50


def test_an_answer_of_another_status_ends_the_run(url: str) -> None:
    Stalling.stalled = True
    with pytest.raises(BenchError, match="409"):
        openloop.run(url, [n / 100 for n in range(50)], lambda n: requests.get(url, "/refused" if n == 5 else "/"))


def test_a_request_that_the_server_hangs_up_on_ends_the_run(url: str) -> None:
    Stalling.stalled = True
    with pytest.raises(BenchError, match="closed a connection"):
        openloop.run(url, [n / 100 for n in range(100)], lambda n: requests.get(url, "/lost" if n == 5 else "/"))


def test_a_connection_that_the_server_closes_unused_is_replaced(url: str) -> None:
    Stalling.stalled = True
    due = [n / 500 for n in range(3 * openloop.CONNECTIONS)]
    timings = openloop.run(url, due, lambda n: requests.get(url, "/gone" if n < openloop.CONNECTIONS else "/"))
    assert len(timings.latencies) == len(due)


def test_the_run_ends_early_when_it_is_stopped(url: str) -> None:
    Stalling.stalled = True
    heard: list[int] = []
    timings = openloop.run(
        url, [n / 100 for n in range(10_000)], lambda n: requests.get(url, "/"),
        hear=lambda number, status, body: heard.append(status), stopped=lambda: len(heard) >= 20,
    )  # fmt: skip
    assert 20 <= len(timings.latencies) == len(heard) < 200


@given(st.floats(10, 2000), st.floats(0.1, 5), st.integers(0, 100))
def test_arrivals_lie_in_their_time_and_are_the_same_for_the_same_seed(rate: float, seconds: float, seed: int) -> None:
    due = openloop.arrivals(rate, seconds, seed)
    assert due == sorted(due) == openloop.arrivals(rate, seconds, seed)
    assert all(0 < at < seconds for at in due)
    assert abs(len(due) - rate * seconds) <= 6 * (rate * seconds) ** 0.5 + 6


@given(st.lists(st.floats(0, 10), min_size=1, max_size=200), st.integers(1, 100))
def test_percentile_is_the_least_value_that_so_many_do_not_pass(values: list[float], percent: int) -> None:
    found = openloop.percentile(values, percent)
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


def test_what_was_due_while_it_warmed_up_does_not_count() -> None:
    timings = openloop.Timings([0.2, 0.9, 1.0, 1.5], [4.0, 3.0, 2.0, 1.0], [0.0, 0.0, 0.1, 0.2])
    assert timings.since(1) == openloop.Timings([1.0, 1.5], [2.0, 1.0], [0.1, 0.2])


def test_plates_are_canonical_and_never_twice() -> None:
    made = [requests.plate(number) for number in range(1, 20_001)]
    assert len(set(made)) == len(made)
    assert all(plates.parse(text, "car").text == text for text in made[:200])
