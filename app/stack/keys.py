"""keys.json: the bearer key of each role, and in a simulation of many drivers. Made once, mode 600, never printed."""

import json
import secrets
from pathlib import Path
from typing import Any

from app.stack.errors import StackError
from app.stack.processes import replace_file

ROLES = ("driver", "warden", "attendant", "planner", "operator", "device")


def write_keys(path: Path, drivers: int = 0) -> dict[str, Any]:
    """Complete the file at `path` to one key a role and `drivers` keys of drivers; returns what it then holds.

    Keys that are there stay, so that what was handed out keeps working. Raises StackError if the file cannot be read.
    """
    kept = _read(path)
    keys: dict[str, Any] = dict(kept)
    for role in ROLES:
        keys.setdefault(role, _new_key())
    many = list(kept.get("drivers", ()))
    if drivers:
        keys["drivers"] = many + [_new_key() for _ in range(drivers - len(many))]
    if keys != kept or path.stat().st_mode & 0o077:
        replace_file(path, json.dumps(keys, indent=2) + "\n")
    return keys


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        kept = json.loads(path.read_text())
    except ValueError as error:
        raise StackError(f"{path} is not JSON ({error}): remove it and new keys are made") from error
    if not isinstance(kept, dict):
        raise StackError(f"{path} holds no object: remove it and new keys are made")
    return kept


def _new_key() -> str:
    return secrets.token_urlsafe(24)
