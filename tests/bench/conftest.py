"""What the short runs need: the test's servers as a stack, with a folder of its own."""

import os
from pathlib import Path

import pytest

from app.stack import Stack


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    given = {
        "IPARKING_DATABASE_URL": os.environ["IPARKING_TEST_DATABASE_URL"],
        "IPARKING_REDIS_URL": os.environ["IPARKING_TEST_REDIS_URL"],
    }
    return Stack(tmp_path, environment=given)
