"""Settings: read from the environment once, checked, then frozen."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from billing.gateways.bank import ACCOUNT, BIN, Account
from billing.gateways.vnpay import Merchant
from billing.rails import Rails
from billing.seller import FAKE, REGISTER, TAX_CODE, Seller

ENVIRONMENTS = ("production", "development", "test", "simulation")
REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")
# What the service connects as: it owns nothing, and migrations/grants.sql says what it may.
SERVICE_ROLE = "iparking_service"
POOLERS = (None, "transaction")
# Late stops, strict overstays of days and idempotency keys reach back into last month at most.
LEAST_ARCHIVE_MONTHS = 2
# Every report has its sessions: the longest spans 366 days.
ARCHIVE_AFTER_MONTHS = 13
REPLICA_LAG_SECONDS = 10.0
# Debian's fonts-dejavu-core.
FONT_FOLDER = Path("/usr/share/fonts/truetype/dejavu")
# VND that a driver may owe from earlier sessions and still start another: about one long stay.
OWED_LIMIT = 300_000
# A session without an end puts the price of this much aside; no decree says how much.
OPEN_HOLD_MINUTES = 60
# US$0.50, which Stripe takes at least.
STRIPE_MINIMUM = 13_000
SMALL_FEES = ("wallet", "wait")
# Of a process, where nothing else is said: what served most in `bench core`, of 8, 16 and 24.
THREADS = 16
# Longer than most stays; what one costs beyond it is owed, and collected.
CARD_HOLD_MINUTES = 240

# The account of nobody: no bank of NAPAS's has this number.
NOBODY = Account("000000", "0000000000")
NO_RAILS = Rails()


class BadSetting(Exception):
    """A setting is missing or wrong; the text names the variable and the rule."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the service needs to know of its surroundings. URLs are libpq and Redis URLs."""

    database_url: str
    redis_url: str
    keys_path: Path | None = None
    environment: str = "production"
    clock_start: datetime | None = None
    clock_speed: float = 1.0
    clock_anchor: datetime | None = None
    clock_booted: datetime | None = None  # when CLOCK_BOOTTIME was 0, as the service's starter read it for all
    max_body_bytes: int = 64 * 1024
    threads: int = THREADS  # that a process has for requests: what granian was told
    redis_timeout_seconds: float = 0.25
    lock_timeout_seconds: float = 5.0
    connect_timeout_seconds: int = 2
    pooler: str | None = None  # "transaction": a PgBouncer stands before PostgreSQL
    pulse_url: str | None = None  # where app/pulse.py asks: not behind statements that wait in the pool for a lock
    replica_url: str | None = None
    replica_lag_seconds: float = REPLICA_LAG_SECONDS  # a replica further behind is not asked
    owner_url: str | None = None  # of the tables' owner, where the archive runs and the service is another role
    archive_folder: Path | None = None
    archive_after_months: int = ARCHIVE_AFTER_MONTHS
    seller: Seller | None = None  # who stands on receipts; without one no e-invoice is made
    einvoice_folder: Path | None = None  # where e-invoices go; without one they wait
    font_folder: Path = FONT_FOLDER
    owed_limit: int = OWED_LIMIT
    open_hold_minutes: int = OPEN_HOLD_MINUTES
    stripe_key: str | None = field(default=None, repr=False)  # none: no card is charged for real
    stripe_url: str | None = None  # another than real Stripe's
    stripe_webhook_secrets: tuple[str, ...] = field(default=(), repr=False)  # two while one replaces the other
    stripe_minimum: int = STRIPE_MINIMUM  # VND; less is not taken from a card by itself
    small_fees: str = "wallet"  # what is less draws on the wallet, as far as that covers it; "wait": is only collected
    card_hold_minutes: int = CARD_HOLD_MINUTES  # a session without an end holds the price of so much
    rails: Rails = NO_RAILS

    def __post_init__(self) -> None:
        if self.environment not in ENVIRONMENTS:
            raise BadSetting(f"IPARKING_ENV: {self.environment!r} is none of {', '.join(ENVIRONMENTS)}")
        if self.redis_url.partition("://")[0] not in REDIS_SCHEMES:
            raise BadSetting(f"IPARKING_REDIS_URL: does not begin with {', '.join(REDIS_SCHEMES)} and ://")
        self._check_database()
        if self.threads < 1:
            raise BadSetting("IPARKING_THREADS: must be at least 1")
        if self.owed_limit < 0:
            raise BadSetting("IPARKING_OWED_LIMIT: must be at least 0")
        if self.open_hold_minutes < 1:
            raise BadSetting("IPARKING_OPEN_HOLD_MINUTES: must be at least 1")
        self._check_stripe()
        if self.clock_start is None and self.clock_anchor is None and self.clock_speed == 1.0:
            return
        if self.environment != "simulation":
            raise BadSetting("IPARKING_CLOCK_START, _SPEED and _ANCHOR need IPARKING_ENV=simulation")
        if self.clock_start is None or self.clock_anchor is None:
            raise BadSetting("a simulated clock needs both IPARKING_CLOCK_START and IPARKING_CLOCK_ANCHOR")
        if not 0 < self.clock_speed <= 100_000:
            raise BadSetting("IPARKING_CLOCK_SPEED: must be above 0 and at most 100000")

    def _check_database(self) -> None:
        if self.pooler not in POOLERS:
            raise BadSetting(f"IPARKING_DATABASE_POOLER: {self.pooler!r} is not known, only transaction")
        if self.pooler and self.archive_folder:
            raise BadSetting("IPARKING_ARCHIVE_FOLDER needs PostgreSQL's own URL, without IPARKING_DATABASE_POOLER")
        if self.pooler and not self.pulse_url:
            raise BadSetting("IPARKING_DATABASE_PULSE_URL is not set, which IPARKING_DATABASE_POOLER needs")
        if self.replica_lag_seconds <= 0:
            raise BadSetting("IPARKING_REPLICA_LAG_SECONDS: must be above 0")
        if self.archive_after_months < LEAST_ARCHIVE_MONTHS:
            raise BadSetting(f"IPARKING_ARCHIVE_AFTER_MONTHS: must be at least {LEAST_ARCHIVE_MONTHS}")

    def _check_stripe(self) -> None:
        if self.stripe_url is not None and not self.stripe_url.startswith(("http://", "https://")):
            raise BadSetting("IPARKING_STRIPE_URL: does not begin with http:// or https://")
        if (self.stripe_key or "").startswith(("sk_live", "rk_live")) and self.environment != "production":
            raise BadSetting("IPARKING_STRIPE_KEY: a live key needs IPARKING_ENV=production")
        if self.stripe_minimum < 1:
            raise BadSetting("IPARKING_STRIPE_MINIMUM: must be at least 1")
        if self.small_fees not in SMALL_FEES:
            raise BadSetting(f"IPARKING_SMALL_FEES: {self.small_fees!r} is none of {', '.join(SMALL_FEES)}")
        if self.card_hold_minutes < 1:
            raise BadSetting("IPARKING_CARD_HOLD_MINUTES: must be at least 1")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """The settings of this process. Raises BadSetting, which names the variable at fault."""
        keys, archive = environment.get("IPARKING_KEYS"), environment.get("IPARKING_ARCHIVE_FOLDER")
        invoices = environment.get("IPARKING_EINVOICE_FOLDER")
        return cls(
            database_url=_required(environment, "IPARKING_DATABASE_URL"),
            redis_url=_required(environment, "IPARKING_REDIS_URL"),
            keys_path=Path(keys) if keys else None,
            environment=environment.get("IPARKING_ENV", "production"),
            clock_start=_instant(environment, "IPARKING_CLOCK_START"),
            clock_speed=_number(environment, "IPARKING_CLOCK_SPEED", 1.0),
            clock_anchor=_instant(environment, "IPARKING_CLOCK_ANCHOR"),
            threads=int(_number(environment, "IPARKING_THREADS", THREADS)),
            clock_booted=_instant(environment, "IPARKING_CLOCK_BOOTED"),
            pooler=environment.get("IPARKING_DATABASE_POOLER") or None,
            pulse_url=environment.get("IPARKING_DATABASE_PULSE_URL") or None,
            replica_url=environment.get("IPARKING_DATABASE_REPLICA_URL") or None,
            replica_lag_seconds=_number(environment, "IPARKING_REPLICA_LAG_SECONDS", REPLICA_LAG_SECONDS),
            owner_url=environment.get("IPARKING_OWNER_DATABASE_URL") or None,
            archive_folder=Path(archive) if archive else None,
            rails=_rails(environment),
            seller=_seller(environment),
            einvoice_folder=Path(invoices) if invoices else None,
            font_folder=Path(environment.get("IPARKING_FONT_FOLDER") or FONT_FOLDER),
            owed_limit=int(_number(environment, "IPARKING_OWED_LIMIT", OWED_LIMIT)),
            open_hold_minutes=int(_number(environment, "IPARKING_OPEN_HOLD_MINUTES", OPEN_HOLD_MINUTES)),
            archive_after_months=int(_number(environment, "IPARKING_ARCHIVE_AFTER_MONTHS", ARCHIVE_AFTER_MONTHS)),
            stripe_key=environment.get("IPARKING_STRIPE_KEY") or None,
            stripe_url=environment.get("IPARKING_STRIPE_URL") or None,
            stripe_webhook_secrets=tuple((environment.get("IPARKING_STRIPE_WEBHOOK_SECRET") or "").split()),
            stripe_minimum=int(_number(environment, "IPARKING_STRIPE_MINIMUM", STRIPE_MINIMUM)),
            small_fees=environment.get("IPARKING_SMALL_FEES") or "wallet",
            card_hold_minutes=int(_number(environment, "IPARKING_CARD_HOLD_MINUTES", CARD_HOLD_MINUTES)),
        )


def _required(environment: Mapping[str, str], name: str) -> str:
    if not environment.get(name):
        raise BadSetting(f"{name} is not set")
    return environment[name]


def _rails(environment: Mapping[str, str]) -> Rails:
    """The account that receives transfers, and who we are to VNPay. Only outside production money may go to nobody."""
    bin_, account = environment.get("IPARKING_BANK_BIN"), environment.get("IPARKING_BANK_ACCOUNT")
    if bool(bin_) != bool(account):
        raise BadSetting("IPARKING_BANK_BIN and IPARKING_BANK_ACCOUNT: both or neither")
    is_production = environment.get("IPARKING_ENV", "production") == "production"
    receives = Account(bin_, account) if bin_ and account else None if is_production else NOBODY
    if receives and not (BIN.fullmatch(receives.bin) and ACCOUNT.fullmatch(receives.number)):
        raise BadSetting("IPARKING_BANK_BIN: 6 digits; IPARKING_BANK_ACCOUNT: 1 to 19 letters and digits")
    return Rails(receives, _vnpay(environment), environment.get("IPARKING_BANK_WEBHOOK_SECRET") or None)


def _vnpay(environment: Mapping[str, str]) -> Merchant | None:
    names = [f"IPARKING_VNPAY_{name}" for name in ("TMN_CODE", "HASH_SECRET", "URL", "RETURN_URL")]
    given = [environment.get(name) or "" for name in names]
    if any(given) and not all(given):
        raise BadSetting(f"{names[given.index('')]} is not set, and other settings of VNPay are")
    if not all(url.startswith(("https://", "http://")) for url in given[2:] if url):
        raise BadSetting("IPARKING_VNPAY_URL and _RETURN_URL: must begin with https:// or http://")
    return Merchant(*given) if all(given) else None


def _seller(environment: Mapping[str, str]) -> Seller | None:
    """The seller as all four variables name it. With none of them: a made-up one, and in production nobody."""
    names = [f"IPARKING_SELLER_{field.upper()}" for field in Seller._fields]
    if not any(environment.get(name) for name in names):
        return None if environment.get("IPARKING_ENV", "production") == "production" else FAKE
    seller = Seller(*(_required(environment, name) for name in names))
    if not TAX_CODE.fullmatch(seller.tax_code):
        raise BadSetting(f"IPARKING_SELLER_TAX_CODE: {seller.tax_code!r} is not 10 digits, nor 10 and -001")
    if not REGISTER.fullmatch(seller.register):
        raise BadSetting(f"IPARKING_SELLER_REGISTER: {seller.register!r} is not 5 capital letters or digits")
    return seller


def _number(environment: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(environment.get(name) or default)
    except ValueError:
        raise BadSetting(f"{name}: {environment[name]!r} is not a number") from None


def _instant(environment: Mapping[str, str], name: str) -> datetime | None:
    if not environment.get(name):
        return None
    try:
        instant = datetime.fromisoformat(environment[name])
    except ValueError:
        raise BadSetting(f"{name}: {environment[name]!r} is not an RFC 3339 instant") from None
    if instant.tzinfo is None:
        raise BadSetting(f"{name}: the offset is missing")
    return instant
