"""E-invoices: the records of Decree 123/2020/NĐ-CP (as amended by 70/2025/NĐ-CP), sent until the provider accepts them.

A provider is called outside every transaction, with the invoice's id and a document that was written down before the
first call. So a lost answer, a crash or a second sender ends in the same document under the same id, and in one answer.
"""

from typing import NamedTuple, Protocol
from uuid import UUID


class Answer(NamedTuple):
    """What a provider says for good: its reference of an invoice that it accepted, else why it refused it."""

    reference: str | None
    reason: str | None = None


class Provider(Protocol):
    """Whoever takes invoices to the tax authority."""

    def submit(self, invoice_id: UUID, name: str, document: bytes) -> Answer:
        """Hand in an invoice; `name` is its sign and number, fit for a file's.

        The same id and document get the same answer. Raises ProviderUnavailable, which leaves open whether it arrived.
        """
        ...
