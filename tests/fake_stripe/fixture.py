"""The fake Stripe as a fixture: every request that reaches it is checked against Stripe's own schemas."""

import importlib.util
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from tests.fake_stripe.server import Check, StripeServer

SHARED = Path(os.environ.get("IPARKING_SHARED", Path(__file__).resolve().parents[3] / "shared"))


@cache
def load_check(shared: Path) -> Check:
    """The check of the shared folder, by path: it is no part of this project."""
    spec = importlib.util.spec_from_file_location("stripe_contract", shared / "tools" / "stripe_contract.py")
    assert spec is not None and spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    check: Check = module.Contract(str(shared / "standards" / "stripe" / "requests.json")).check
    return check


@pytest.fixture
def stripe_server() -> Iterator[StripeServer]:
    """One empty account. Where Stripe's schemas are not on this machine, test_stripe.py says so by a skip."""
    check = load_check(SHARED) if SHARED.is_dir() else None
    with StripeServer(check) as server:
        yield server
    assert server.violations == []
