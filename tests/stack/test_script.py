"""The bash script on a machine that lacks something: a copy of it beside an empty lock and a small command line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
NOBODY = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
BASICS = ["bash", "dirname", "readlink", "mkdir", "sha256sum", "flock", "mv", "rm", "tail", "env", "cat"]


@pytest.fixture
def project(open_folder: Path) -> Path:
    """A project that needs no library, in a folder of an unprivileged user."""
    shutil.copy(ROOT / "iparking", open_folder)
    (open_folder / "requirements.lock").write_text("# nothing\n")
    (open_folder / "app").mkdir()
    (open_folder / "app" / "cli.py").write_text("import sys; print('ran', *sys.argv[1:])\n")
    if NOBODY:
        os.chown(open_folder, 65534, 65534)
    return open_folder


def machine_with(folder: Path, *programs: str) -> str:
    """A PATH that holds these programs and nothing else."""
    place = folder / "bin"
    place.mkdir()
    for program in programs:
        found = shutil.which(program)
        assert found is not None, program
        (place / program).symlink_to(found)
    return str(place)


def run(project: Path, path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": path, "HOME": str(project)}
    script = str(project / "iparking")
    return subprocess.run(
        [script, *arguments], env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, **NOBODY
    )


def system_python() -> str | None:
    """A Python for others than root too, with venv."""
    for name in ("/usr/bin/python3", sys.executable):
        check = [name, "-c", "import sys, ensurepip; sys.exit(sys.version_info < (3, 11))"]
        if Path(name).exists() and subprocess.run(check, capture_output=True, **NOBODY).returncode == 0:
            return name
    return None


def add_python(path: str, text: str) -> None:
    python = Path(path) / "python3"
    python.write_text(text)
    python.chmod(0o755)


def test_without_python_it_says_so_and_exits_3(project: Path) -> None:
    done = run(project, machine_with(project, *BASICS), "up")
    assert done.returncode == 3
    assert done.stderr.startswith("iparking: Python 3.11 or newer is needed and not on the PATH")
    assert done.stderr.count("\n") == 1


def test_old_python_does_not_count(project: Path) -> None:
    path = machine_with(project, *BASICS)
    add_python(path, "#!/bin/sh\nexit 1\n")
    assert run(project, path, "up").returncode == 3


@pytest.mark.skipif(not NOBODY, reason="whether this user may use sudo without a password is not known")
@pytest.mark.parametrize("with_sudo", [False, True])
def test_without_root_and_sudo_it_names_the_packages_and_exits_3(project: Path, with_sudo: bool) -> None:
    path = machine_with(project, *BASICS)
    add_python(path, "#!/bin/sh\nexit 0\n")
    (Path(path) / "apt-get").symlink_to("/bin/true")
    if with_sudo:
        (Path(path) / "sudo").symlink_to("/bin/false")
    done = run(project, path, "bench", "core")
    assert done.returncode == 3
    assert "run as root: apt-get install --no-install-recommends " in done.stderr
    assert done.stderr.rstrip().endswith(" wrk")
    assert done.stderr.count("\n") == 1


def test_machine_without_apt_is_told_what_is_missing(project: Path) -> None:
    path = machine_with(project, *BASICS)
    add_python(path, "#!/bin/sh\nexit 0\n")
    done = run(project, path, "bench", "core")
    assert done.returncode == 3
    assert "wrk (bench's reference client)" in done.stderr
    assert "no apt-get" in done.stderr


def test_half_made_venv_is_remade_once_by_two_at_once(project: Path) -> None:
    python = system_python()
    if python is None:
        pytest.skip("no Python with venv for an unprivileged user")
    path = machine_with(project, *BASICS)
    (Path(path) / "python3").symlink_to(python)
    half_made = project / ".venv" / "bin" / "python"  # as if it had been killed before the end: there is no stamp
    half_made.parent.mkdir(parents=True)
    half_made.write_text("")
    if NOBODY:
        for place in (half_made.parent.parent, half_made.parent, half_made):
            os.chown(place, 65534, 65534)
    env = {"PATH": path, "HOME": str(project)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([project / "iparking", "status", n], env=env, **pipes, **NOBODY) for n in "12"]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [out for out, _ in outputs] == ["ran status 1\n", "ran status 2\n"], outputs
    assert sum("making .venv" in err for _, err in outputs) == 1

    again = run(project, path, "status")
    assert (again.returncode, again.stdout, again.stderr) == (0, "ran status\n", "")
