"""Plain reads of the service, for what stands around a run: its clock, its zones, and what the auditor compares."""

import json
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from time import time
from typing import Any
from urllib.parse import urljoin, urlsplit

from simulator.answers import Clock, ZoneFacts, microseconds

MAX_PAGES = 100_000
READINGS = 7


class ServiceError(OSError):
    """The service does not answer as documented; the text says where and how."""


class Service:
    """One keep-alive connection to the service at `base_url`, used by one thread."""

    def __init__(self, base_url: str, timeout: float = 30.0) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ServiceError(f"{base_url!r} is not an http address")
        self.base_url = base_url.rstrip("/")
        self._path = parts.path.rstrip("/")
        connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = connect(parts.hostname, parts.port, timeout=timeout)

    def close(self) -> None:
        self._connection.close()

    def get(self, path: str, token: str | None = None) -> Any:
        """The JSON document at `path` (query included). Raises ServiceError for any answer but a 200 with JSON."""
        return self._get(path, token)[0]

    def pages(self, path: str, token: str | None = None) -> Iterator[Any]:
        """All pages of a collection, by the links that the service gives (`Link: <...>; rel="next"`)."""
        for _ in range(MAX_PAGES):
            document, link = self._get(path, token)
            yield document
            following = _next(path, link)
            if following is None:
                return
            path = following
        raise ServiceError(f"{path}: more than {MAX_PAGES} pages")

    def clock(self) -> Clock:
        """How the service's clock stands against ours, from the quickest of a few readings (its error: half the round
        trip)."""
        return min((self._read_clock() for _ in range(READINGS)), key=lambda clock: clock.error)

    def zones(self) -> dict[str, ZoneFacts]:
        """Every zone by its code, with what stands in it now."""
        features = [feature for page in self.pages("/v1/zones") for feature in page["features"]]
        return {feature["properties"]["code"]: _zone(feature["properties"]) for feature in features}

    def districts(self) -> dict[str, str]:
        """District names by code."""
        features = [feature for page in self.pages("/v1/districts") for feature in page["features"]]
        return {feature["properties"]["code"]: feature["properties"]["name"] for feature in features}

    def _read_clock(self) -> Clock:
        before = time()
        health = self.get("/healthz")
        after = time()
        try:
            return Clock(
                microseconds(health["now"]), (before + after) / 2, float(health["clock"]["speed"]), (after - before) / 2
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ServiceError(f"{self.base_url}/healthz: no clock in it ({type(error).__name__}: {error})") from None

    def _get(self, path: str, token: str | None) -> tuple[Any, str]:
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        try:
            answer = self._ask(path, headers)
            body = answer.read()
        except (OSError, HTTPException) as error:
            self._connection.close()
            raise ServiceError(f"{self.base_url}{path}: {type(error).__name__} {error}") from None
        if answer.status != 200:
            raise ServiceError(f"{self.base_url}{path}: {answer.status} {body[:300].decode('utf-8', 'replace')}")
        try:
            return json.loads(body), answer.headers.get("Link") or ""
        except ValueError:
            raise ServiceError(f"{self.base_url}{path}: the answer is not JSON") from None

    def _ask(self, path: str, headers: dict[str, str]) -> HTTPResponse:
        try:
            self._connection.request("GET", self._path + path, headers=headers)
            return self._connection.getresponse()
        except (ConnectionError, HTTPException):
            # A server may close an idle connection at any time; a read can be asked again.
            self._connection.close()
            self._connection.request("GET", self._path + path, headers=headers)
            return self._connection.getresponse()


def _next(path: str, link: str) -> str | None:
    for part in link.split(",") if link else ():
        target, _, parameters = part.strip().partition(">")
        if target.startswith("<") and 'rel="next"' in parameters.replace(" ", ""):
            parts = urlsplit(urljoin(path, target[1:]))
            return f"{parts.path}?{parts.query}" if parts.query else parts.path
    return None


def _zone(facts: dict[str, Any]) -> ZoneFacts:
    try:
        return ZoneFacts(
            district=facts["district"],
            street=facts.get("street") or "",
            rate_area=facts["rate_area"],
            admission=facts["admission"],
            max_stay_minutes=facts["max_stay_minutes"],
            capacity=dict(facts["capacity"]),
            occupied={name: counts["occupied"] or 0 for name, counts in facts["availability"].items()},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ServiceError(f"zone {facts.get('code')}: {type(error).__name__} {error}") from None
