"""Processes that outlive their starter: found again by record, and never mistaken for others."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from app.stack.processes import Process, Records, identify, replace_file, spawn, wait_until

# A leader that starts a child in its session, tells its id, and waits.
FAMILY = "import subprocess, sys; child = subprocess.Popen(['sleep', '60']); print(child.pid, flush=True); child.wait()"


def family(folder: Path) -> tuple[Process, int]:
    """A leader and its child, running."""
    leader = spawn([sys.executable, "-c", FAMILY], folder / "log")
    assert wait_until(lambda: (folder / "log").read_text().endswith("\n"), 10)
    return identify("family", leader.pid), int((folder / "log").read_text())


def test_stop_ends_the_whole_session(tmp_path: Path) -> None:
    process, child = family(tmp_path)
    assert sorted(process.members()) == sorted([process.pid, child])
    process.stop()
    assert process.members() == []
    assert not process.is_alive()


def test_children_of_a_killed_leader_are_found_and_stopped(tmp_path: Path) -> None:
    process, child = family(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    assert wait_until(lambda: not process.is_alive(), 5)
    assert process.members() == [child]
    process.stop()
    assert process.members() == []


@pytest.mark.parametrize("other", [{"started": 1}, {"boot": "an earlier one"}])
def test_process_that_got_a_recorded_id_later_is_not_touched(tmp_path: Path, other: dict[str, object]) -> None:
    process, _ = family(tmp_path)
    earlier = replace(process, **other)
    assert not earlier.is_alive()
    earlier.stop(patience=0.1)
    assert process.is_alive()
    process.stop()


def test_records_forget_what_has_ended(tmp_path: Path) -> None:
    records = Records(tmp_path)
    process, _ = family(tmp_path)
    records.write(process)
    assert records.read("family") == process
    assert records.stop("family") is True
    assert records.read("family") is None
    assert records.stop("family") is False


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"name": "x"}'])
def test_damaged_record_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "broken.json").write_text(content)
    assert Records(tmp_path).read("broken") is None


def test_spawned_program_holds_no_descriptor_of_the_caller(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    process = identify("sleeper", spawn(["sleep", "60"], tmp_path / "log").pid)
    os.close(writing)
    assert os.read(reading, 1) == b""  # nobody else holds the writing end
    os.close(reading)
    process.stop()


def test_replaced_file_is_whole_and_closed_to_others(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    file.chmod(0o644)
    replace_file(file, "new")
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_spawned_program_reads_nothing_from_the_caller(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from app.stack.processes import spawn; spawn(['cat'], Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "log"], input="secret", text=True, capture_output=True
    )
    assert done.returncode == 0
    assert (tmp_path / "log").read_text() == ""
