"""The instant at which a fault strikes, in the middle of the service's work, and what shows that it did."""

import time
from dataclasses import dataclass

from bench.errors import BenchError
from bench.faults.site import PATIENCE, Site

# So many transactions of the service have written and not committed yet when a fault strikes. More requests are in
# flight then: starts go in groups.
BUSY = 2
_WRITING = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND usename = 'iparking_service' AND backend_xid IS NOT NULL"""


@dataclass
class Strike:
    """One fault's. `at` is when it struck (seconds since 1970). `proof` says what was seen of it, by other means than
    it was done with; a fault that did nothing has none."""

    site: Site
    busy: int = BUSY
    at: float = 0.0
    proof: str | None = None

    def wait(self) -> None:
        """Return at an instant at which the service is busy: the fault strikes now. Raises BenchError."""
        deadline = time.monotonic() + PATIENCE
        with self.site.connect() as connection:
            # No pause between two looks: what is looked for is over within milliseconds.
            while connection.execute(_WRITING).fetchone()[0] < self.busy:  # type: ignore[index]
                if time.monotonic() > deadline:
                    raise BenchError(f"the service was not busy within {PATIENCE:.0f} s")
            self.at = time.time()
