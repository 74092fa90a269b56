import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.stack import Stack
from app.stack.up import down

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the servers as somebody else")


def make_home(parent: Path) -> Path:
    home = parent / ".iparking"
    home.mkdir(mode=0o755, parents=True)
    return home


def remove_home(home: Path) -> None:
    """Stop what runs there, and remove it with what it links to."""
    down(home)
    outside = [(home / name).resolve() for name in ("data", "socket") if (home / name).is_symlink()]
    for folder in [*outside, home]:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def open_place() -> Iterator[Path]:
    """A folder with a short path that everybody may enter (pytest's own are closed)."""
    folder = Path(tempfile.mkdtemp(prefix="ip-", dir="/tmp"))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with open_place() as folder:
        yield folder


@pytest.fixture
def home(open_folder: Path) -> Iterator[Path]:
    """A folder for a stack of the test's own."""
    home = make_home(open_folder)
    yield home
    remove_home(home)


@pytest.fixture
def stack(home: Path) -> Iterator[Stack]:
    """Private servers of the test's own, started."""
    with Stack(home, {}) as stack:
        yield stack
