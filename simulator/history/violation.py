"""What a history shows to be wrong."""

from typing import NamedTuple

from simulator.history.record import Operation


class Violation(NamedTuple):
    """`rule` is a snake_case fact, `detail` says it to a person, `operations` are those that show it."""

    rule: str
    detail: str
    operations: tuple[Operation, ...]
