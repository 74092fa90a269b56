"""A folder as the provider: whole files, the same answer to the same invoice, and no invoice over another."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from billing.einvoices.folder import Folder
from billing.errors import ProviderUnavailable

NAME = "1C26MAC-00000001"


def test_an_invoice_becomes_one_file_and_again_the_same_answer(tmp_path: Path):
    folder = Folder(tmp_path / "made" / "here")
    invoice = uuid4()
    first = folder.submit(invoice, NAME, b"<a/>")
    assert first == folder.submit(invoice, NAME, b"<a/>")
    assert first.reference == f"{NAME}.xml"
    assert [file.read_bytes() for file in (tmp_path / "made/here").iterdir()] == [b"<a/>"]


def test_another_invoice_of_the_same_name_is_refused(tmp_path: Path):
    folder = Folder(tmp_path)
    folder.submit(uuid4(), NAME, b"<a/>")
    answer = folder.submit(uuid4(), NAME, b"<b/>")
    assert answer.reference is None and answer.reason == f"{NAME}.xml holds another invoice"
    assert (tmp_path / f"{NAME}.xml").read_bytes() == b"<a/>"


def test_of_two_at_once_one_is_written_and_the_other_refused(tmp_path: Path):
    folder, documents = Folder(tmp_path), [bytes([65 + n]) * 100_000 for n in range(8)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda document: folder.submit(uuid4(), NAME, document), documents))
    (accepted,) = [n for n, answer in enumerate(answers) if answer.reference]
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [documents[accepted]]


def test_a_full_disk_is_no_answer_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(ProviderUnavailable, match="No space left"):
            Folder(tmp_path).submit(uuid4(), NAME, b"<a/>")
    assert list(tmp_path.iterdir()) == []
    assert Folder(tmp_path).submit(uuid4(), NAME, b"<a/>").reference


def test_a_folder_that_cannot_be_is_no_answer(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ProviderUnavailable):
        Folder(tmp_path / "file" / "below").submit(uuid4(), NAME, b"<a/>")
