"""Why a benchmark has no result."""


class BenchError(Exception):
    """The measurement would not be true, or cannot be made; one line says why."""
