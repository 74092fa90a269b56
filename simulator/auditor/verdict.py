"""What an audit finds: divergences, of which the first of each kind are kept in words and all are counted."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

KEPT_OF_A_KIND = 20


@dataclass(frozen=True, slots=True)
class Divergence:
    """One thing that is not as it must be: what kind, about what, and what was expected against what was found."""

    kind: str
    about: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.about}: {self.detail}"


@dataclass(slots=True)
class Verdict:
    """The result of an audit. `compared` counts what was looked at, by what it was: nothing compared proves nothing."""

    by_kind: Counter[str] = field(default_factory=Counter)
    kept: list[Divergence] = field(default_factory=list)
    compared: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def divergences(self) -> int:
        return self.by_kind.total()

    def add(self, kind: str, about: str, detail: str) -> None:
        """One more divergence."""
        self.by_kind[kind] += 1
        if self.by_kind[kind] <= KEPT_OF_A_KIND:
            self.kept.append(Divergence(kind, about, detail))

    def expect(self, kind: str, about: str, name: str, expected: object, found: object) -> bool:
        """Whether a value is as expected; one more divergence where it is not."""
        if expected == found:
            return True
        self.add(kind, about, f"{name} is {found}, expected {expected}")
        return False

    def as_dict(self) -> dict[str, Any]:
        return {
            "divergences": self.divergences,
            "divergences_by_kind": dict(sorted(self.by_kind.items())),
            "divergence_details": [str(divergence) for divergence in self.kept],
            "compared": dict(sorted(self.compared.items())),
            "notes": self.notes,
        }
