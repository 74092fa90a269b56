"""Settings are checked once at the start, and a scaled clock is for simulations only."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.clock import RealClock, ScaledClock, make_clock
from app.config import BadSetting, Settings
from app.resources import make_redis
from billing.seller import FAKE, Seller

URLS = {"IPARKING_DATABASE_URL": "postgresql://u@127.0.0.1/d", "IPARKING_REDIS_URL": "redis://127.0.0.1/0"}
SCALED = {
    "IPARKING_ENV": "simulation",
    "IPARKING_CLOCK_START": "2026-10-14T07:00:00+07:00",
    "IPARKING_CLOCK_SPEED": "120",
    "IPARKING_CLOCK_ANCHOR": "2026-11-01T00:00:00Z",
}


def test_defaults_are_production_with_the_real_clock():
    settings = Settings.from_environment(URLS)
    assert settings.environment == "production" and isinstance(make_clock(settings), RealClock)


SELLER = {
    "IPARKING_SELLER_NAME": "Công ty",
    "IPARKING_SELLER_TAX_CODE": "0101234567-001",
    "IPARKING_SELLER_ADDRESS": "Hà Nội",
    "IPARKING_SELLER_REGISTER": "AB12C",
}


def test_receipts_name_a_seller_that_nobody_can_take_for_real_and_in_production_none():
    assert Settings.from_environment(URLS).seller is None
    assert Settings.from_environment(URLS | {"IPARKING_ENV": "development"}).seller == FAKE
    assert Settings.from_environment(URLS | SELLER).seller == Seller(*SELLER.values())


@pytest.mark.parametrize(
    ("variable", "value"),
    [("NAME", ""), ("TAX_CODE", "12345"), ("ADDRESS", ""), ("REGISTER", "ab12c"), ("REGISTER", "AB12CD")],
)
def test_half_a_seller_is_refused(variable: str, value: str):
    with pytest.raises(BadSetting, match=f"IPARKING_SELLER_{variable}"):
        Settings.from_environment(URLS | SELLER | {f"IPARKING_SELLER_{variable}": value})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"IPARKING_DATABASE_URL": ""}, "IPARKING_DATABASE_URL"),
        ({"IPARKING_REDIS_URL": ""}, "IPARKING_REDIS_URL"),
        ({"IPARKING_REDIS_URL": "127.0.0.1:6379"}, "IPARKING_REDIS_URL"),
        ({"IPARKING_REDIS_URL": "cluster://127.0.0.1:6379"}, "IPARKING_REDIS_URL.*redis.cluster"),
        ({"IPARKING_DATABASE_POOLER": "transaction"}, "IPARKING_DATABASE_PULSE_URL"),
        ({"IPARKING_ENV": "prod"}, "IPARKING_ENV"),
        ({"IPARKING_ENV": "production"}, "IPARKING_ENV=simulation"),
        ({"IPARKING_CLOCK_SPEED": "fast"}, "IPARKING_CLOCK_SPEED"),
        ({"IPARKING_CLOCK_SPEED": "-1"}, "IPARKING_CLOCK_SPEED"),
        ({"IPARKING_CLOCK_START": "7 o'clock"}, "IPARKING_CLOCK_START"),
        ({"IPARKING_CLOCK_START": "2026-10-14T07:00:00"}, "offset"),
        ({"IPARKING_CLOCK_ANCHOR": ""}, "IPARKING_CLOCK_ANCHOR"),
        ({"IPARKING_DATABASE_POOLER": "session"}, "IPARKING_DATABASE_POOLER"),
        ({"IPARKING_DATABASE_POOLER": "transaction", "IPARKING_ARCHIVE_FOLDER": "/a"}, "IPARKING_ARCHIVE_FOLDER"),
        ({"IPARKING_ARCHIVE_AFTER_MONTHS": "1"}, "IPARKING_ARCHIVE_AFTER_MONTHS"),
        ({"IPARKING_REPLICA_LAG_SECONDS": "0"}, "IPARKING_REPLICA_LAG_SECONDS"),
        ({"IPARKING_THREADS": "0"}, "IPARKING_THREADS"),
    ],
)
def test_bad_setting_is_named(change: dict[str, str], named: str):
    with pytest.raises(BadSetting, match=named):
        Settings.from_environment(URLS | SCALED | change)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix", "redis+cluster", "rediss+cluster"])
def test_every_kind_of_redis_is_known(scheme: str):
    settings = Settings.from_environment(URLS | {"IPARKING_REDIS_URL": f"{scheme}://127.0.0.1:1/0"})
    make_redis(settings).close()


@pytest.mark.parametrize(
    "url", ["redis+cluster://:secret@127.0.0.1:1/3", "redis+cluster://:secret@h:p", "redis://:secret@h:p"]
)
def test_bad_redis_url_is_named_without_its_password(url: str):
    with pytest.raises(BadSetting, match="IPARKING_REDIS_URL") as refusal:
        make_redis(Settings.from_environment(URLS | {"IPARKING_REDIS_URL": url}))
    assert "secret" not in str(refusal.value)


@given(st.floats(0.1, 10_000), st.floats(0, 1e6))
def test_scaled_clock_runs_from_its_anchor(speed: float, real_seconds: float):
    start = datetime(2026, 10, 14, tzinfo=UTC)
    clock = ScaledClock(start, datetime.now(UTC) - timedelta(seconds=real_seconds), speed)
    first, second = clock.now(), clock.now()
    assert first <= second
    assert (first - start).total_seconds() >= real_seconds * speed - 1
    assert (first - start).total_seconds() <= (real_seconds + 5) * speed


def test_all_processes_of_a_simulation_agree():
    one, other = (make_clock(Settings.from_environment(URLS | SCALED)) for _ in range(2))
    assert abs((one.now() - other.now()).total_seconds()) < 120


BANK = {"IPARKING_BANK_BIN": "970436", "IPARKING_BANK_ACCOUNT": "0123456789"}
VNPAY = {
    "IPARKING_VNPAY_TMN_CODE": "IPARK001",
    "IPARKING_VNPAY_HASH_SECRET": "secret",
    "IPARKING_VNPAY_URL": "https://pay.example/vpcpay.html",
    "IPARKING_VNPAY_RETURN_URL": "https://iparking.example/return",
}


def test_money_goes_to_nobody_only_outside_production():
    assert Settings.from_environment(URLS).rails.account is None
    assert Settings.from_environment(URLS | {"IPARKING_ENV": "test"}).rails.account == ("000000", "0000000000")
    assert Settings.from_environment(URLS | BANK).rails.account == ("970436", "0123456789")


def test_rails_are_what_is_set():
    rails = Settings.from_environment(URLS | VNPAY | {"IPARKING_BANK_WEBHOOK_SECRET": "other"}).rails
    assert rails.merchant is not None and rails.merchant.return_url == "https://iparking.example/return"
    assert rails.bank_secret == "other" and "'other'" not in repr(rails) and "'secret'" not in repr(rails)
    assert Settings.from_environment(URLS).rails.merchant is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"IPARKING_BANK_BIN": ""}, "IPARKING_BANK_BIN"),
        ({"IPARKING_BANK_BIN": "VCB"}, "IPARKING_BANK_BIN"),
        ({"IPARKING_BANK_ACCOUNT": "0123 456"}, "IPARKING_BANK_ACCOUNT"),
        ({"IPARKING_VNPAY_HASH_SECRET": ""}, "IPARKING_VNPAY_HASH_SECRET"),
        ({"IPARKING_VNPAY_URL": "pay.example"}, "IPARKING_VNPAY_URL"),
    ],
)
def test_rail_that_is_half_set_up_is_named(change: dict[str, str], named: str):
    with pytest.raises(BadSetting, match=named):
        Settings.from_environment(URLS | BANK | VNPAY | change)


STRIPE = {
    "IPARKING_STRIPE_KEY": "sk_live_1",
    "IPARKING_STRIPE_URL": "http://127.0.0.1:8421",
    "IPARKING_STRIPE_WEBHOOK_SECRET": "whsec_1 whsec_2",
    "IPARKING_STRIPE_MINIMUM": "14000",
}


def test_stripe_is_what_is_set_and_nothing_by_itself():
    alone = Settings.from_environment(URLS)
    assert (alone.stripe_key, alone.stripe_webhook_secrets, alone.stripe_minimum) == (None, (), 13_000)
    settings = Settings.from_environment(URLS | STRIPE)
    assert (settings.stripe_url, settings.stripe_minimum) == ("http://127.0.0.1:8421", 14_000)
    assert settings.stripe_webhook_secrets == ("whsec_1", "whsec_2")
    assert "sk_live" not in repr(settings) and "whsec" not in repr(settings)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"IPARKING_STRIPE_KEY": "sk_live_1", "IPARKING_ENV": "simulation"}, "IPARKING_STRIPE_KEY"),
        ({"IPARKING_STRIPE_URL": "127.0.0.1:8421"}, "IPARKING_STRIPE_URL"),
        ({"IPARKING_STRIPE_MINIMUM": "0"}, "IPARKING_STRIPE_MINIMUM"),
        ({"IPARKING_SMALL_FEES": "never"}, "IPARKING_SMALL_FEES"),
        ({"IPARKING_CARD_HOLD_MINUTES": "0"}, "IPARKING_CARD_HOLD_MINUTES"),
    ],
)
def test_bad_stripe_setting_is_named(change: dict[str, str], named: str):
    with pytest.raises(BadSetting, match=named):
        Settings.from_environment(URLS | change)
