"""A provider that is a folder: one file an invoice, which it accepts once the disk has it."""

import os
import tempfile
from pathlib import Path
from uuid import UUID

from billing.einvoices import Answer
from billing.errors import ProviderUnavailable


class Folder:
    """Writes each invoice to `<sign>-<number>.xml`. A file is there as a whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def submit(self, invoice_id: UUID, name: str, document: bytes) -> Answer:
        """See Provider. Refuses another document under a name that is taken."""
        file = self._path / f"{name}.xml"
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                self._write(file, document)
            if file.read_bytes() != document:
                return Answer(None, f"{file.name} holds another invoice")
        except OSError as error:
            raise ProviderUnavailable(f"{file.name} could not be written: {error.strerror}") from error
        return Answer(file.name)

    def _write(self, file: Path, document: bytes) -> None:
        """Through a file of another name, which gets this one only where nobody was faster."""
        handle, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=self._path)
        try:
            with os.fdopen(handle, "wb") as unfinished:
                unfinished.write(document)
                unfinished.flush()
                os.fsync(unfinished.fileno())
            try:
                os.link(temporary, file)
            except FileExistsError:
                return
            self._sync_folder()
        finally:
            os.unlink(temporary)

    def _sync_folder(self) -> None:
        """Let the disk keep the new name too."""
        folder = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
