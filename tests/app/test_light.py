"""The command line must start at once, so importing it loads nothing heavy."""

import subprocess
import sys


def test_command_line_loads_no_web_framework():
    heavy = ("flask", "sqlalchemy", "shapely", "numpy", "alembic")
    code = f"import sys, app.cli; print([name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
