"""What the short runs need: the test's servers as a stack, with a folder of its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.stack import Stack
from tests.conftest import admin_connection

ONE_RUN = 7_264_003


@pytest.fixture
def one_run() -> Iterator[dict[str, str]]:
    """The test's servers, for one run at a time: all runs make the same databases."""
    with admin_connection() as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [ONE_RUN])
        yield {
            "IPARKING_DATABASE_URL": os.environ["IPARKING_TEST_DATABASE_URL"],
            "IPARKING_REDIS_URL": os.environ["IPARKING_TEST_REDIS_URL"],
        }


@pytest.fixture
def stack(one_run: dict[str, str], tmp_path: Path) -> Stack:
    """The test's servers as a stack with a folder of its own."""
    return Stack(tmp_path, environment=one_run)
