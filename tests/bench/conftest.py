"""What the short runs need: the test's servers as a stack, with a folder of its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.stack import Stack
from tests.conftest import admin_connection

ONE_RUN = 7_264_003


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """One run at a time: they all make the same databases."""
    given = {
        "IPARKING_DATABASE_URL": os.environ["IPARKING_TEST_DATABASE_URL"],
        "IPARKING_REDIS_URL": os.environ["IPARKING_TEST_REDIS_URL"],
    }
    with admin_connection() as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [ONE_RUN])
        yield Stack(tmp_path, environment=given)
