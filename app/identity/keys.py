"""Bearer keys by role, read from the keys file once at start. Real sign-in comes later, behind the same role check."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

ROLES = ("driver", "warden", "attendant", "planner", "operator", "device")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks: the role decides what is allowed, the subject whose things are seen."""

    role: str
    subject: str


class Keys:
    """The keys that this process accepts. Held as hashes, so that looking one up tells nothing about the others."""

    def __init__(self, identities: dict[str, Identity]) -> None:
        self._identities = {_digest(token): identity for token, identity in identities.items()}

    def identify(self, token: str) -> Identity | None:
        """Who holds this key, or None."""
        return self._identities.get(_digest(token))

    def knows(self, identity: Identity) -> bool:
        """Whether anybody holds a key as this."""
        return identity in self._identities.values()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def load_keys(path: Path | None) -> Keys:
    """Read a keys file: one key a role; `drivers`, a list of many (driver-1, driver-2, …); `attendants`, likewise.

    No path: no keys.
    """
    if path is None:
        return Keys({})
    held = json.loads(path.read_text(encoding="utf-8"))
    identities = {held[role]: Identity(role, role) for role in ROLES if role in held}
    identities |= {key: Identity("driver", f"driver-{n}") for n, key in enumerate(held.get("drivers", []), 1)}
    identities |= {key: Identity("attendant", f"attendant-{n}") for n, key in enumerate(held.get("attendants", []), 1)}
    return Keys(identities)
