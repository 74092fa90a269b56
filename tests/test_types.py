"""The types of all packages hold, as setup.cfg asks of them."""

import subprocess
import sys

from tests.conftest import ROOT


def test_mypy_finds_no_error() -> None:
    command = [sys.executable, "-m", "mypy", "app", "billing", "zones", "simulator", "bench"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
