"""The requests of bench/wrk/ for the open-loop client: the same plates, the same bodies."""

import random
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import orjson

# As in wrk/common.lua: six provinces by twenty letters by five digits, never 00000; STEP meets each plate once.
PROVINCES = ("29", "30", "31", "32", "33", "40")
LETTERS = "ABCDEFGHKLMNPSTUVXYZ"
DIGITS = 99_999
PLATES = len(PROVINCES) * len(LETTERS) * DIGITS
STEP = 7_368_787
STAYS: tuple[dict[str, int], ...] = ({"minutes": 60}, {"minutes": 120}, {})

Make = Callable[[int], bytes]


def plate(number: int) -> str:
    """A car's plate that no other number below 12 million has."""
    series, digits = divmod(number * STEP % PLATES, DIGITS)
    province, letter = divmod(series, len(LETTERS))
    return f"{PROVINCES[province]}{LETTERS[letter]}-{(digits + 1) // 100:03d}.{(digits + 1) % 100:02d}"


def post(url: str, path: str, body: object, **headers: str) -> bytes:
    """A POST of JSON as it goes over the wire. Header names are given with _ for -."""
    payload = orjson.dumps(body)
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Type: application/json\r\n"
    return f"{head}{lines}Content-Length: {len(payload)}\r\n\r\n".encode() + payload


def get(url: str, path: str) -> bytes:
    """A GET as it goes over the wire."""
    return f"GET {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n\r\n".encode()


def starts(url: str, first: int, drivers: Sequence[str], zones: Sequence[str], method: str) -> Make:
    """POST /v1/sessions as start.lua sends it, to be paid by `method`; number n has the plate of `first` + n."""
    chance = random.Random(first)

    def make(n: int) -> bytes:
        i = first + n
        wanted = {"zone": chance.choice(zones), "plate": plate(i), "vehicle_class": "car", "payment_method": method}
        headers = {
            "Authorization": f"Bearer {drivers[i % len(drivers)]}",
            "Idempotency_Key": f"open-loop-start-{i:012d}",
        }
        return post(url, "/v1/sessions", wanted | STAYS[i % 3], **headers)

    return make


def ceilings(url: str, first: int, zones: int) -> Make:
    """POST /ceiling as ceiling.lua sends it."""
    chance = random.Random(first)
    return lambda n: post(url, "/ceiling", {"zone": chance.randint(1, zones), "plate": plate(first + n)})
