"""Where the private servers keep their files, and as whom they run.

.iparking/            stack.json, keys.json (mode 600 each), log/, run/
.iparking/data/       postgres/, redis/: or a link to /var/lib/iparking/<hash of the path>
.iparking/socket/     PostgreSQL's unix socket: or a link to a folder with a shorter path
"""

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from app.stack.errors import StackError
from app.stack.processes import kill_all, working_in

SHARED_STATE = Path("/var/lib/iparking")
LONGEST_SOCKET_PATH = 107  # sun_path holds 108 bytes, the last one is the closing zero
SOCKET_NAME = ".s.PGSQL.65535"
ORIGIN = "made-for"


@dataclass(frozen=True, slots=True)
class RunUser:
    """The account that the servers run as; `switch` is false where that is the caller himself."""

    name: str
    uid: int
    gid: int
    switch: bool

    def popen_arguments(self) -> dict[str, object]:
        """The arguments that make subprocess start a program as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switch else {}

    def own(self, path: Path) -> None:
        """Make `path` this user's."""
        if self.switch:
            os.chown(path, self.uid, self.gid)


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders of one stack. `data` and `sockets` are real paths, links resolved."""

    root: Path
    data: Path
    sockets: Path
    user: RunUser

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def run(self) -> Path:
        return self.root / "run"


def prepare(root: Path, servers: bool = True) -> Folders:
    """Make what is missing of the folders under `root`; those of the servers only where some are to run.

    Raises StackError where the folder belongs to somebody else.
    """
    root.mkdir(parents=True, exist_ok=True)
    refuse_foreign(root)
    for folder in (root / "log", root / "run"):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o700)
    user = run_user(root / "data")
    if not servers:
        return Folders(root, root / "data", root / "socket", user)
    data = _data_folder(root, user)
    return Folders(root, data, _socket_folder(root, data, user), user)


def refuse_foreign(root: Path) -> None:
    """Raise StackError where the folder is another user's and the caller is not root."""
    owner = root.stat().st_uid
    if os.geteuid() not in (0, owner):
        raise StackError(f"{root} belongs to {_user_name(owner)}: run as that user, or remove it to begin afresh")


def run_user(data: Path) -> RunUser:
    """Who runs the servers: the caller, or where that is root, the owner of the data, `postgres` or `nobody`."""
    if os.geteuid() != 0:
        return RunUser(_user_name(os.geteuid()), os.geteuid(), os.getegid(), switch=False)
    if data.exists() and data.stat().st_uid:
        return RunUser(_user_name(data.stat().st_uid), data.stat().st_uid, data.stat().st_gid, switch=True)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return RunUser(entry.pw_name, entry.pw_uid, entry.pw_gid, switch=True)
    raise StackError("PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as")


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _data_folder(root: Path, user: RunUser) -> Path:
    link = root / "data"
    if link.is_symlink() and _is_mine(link.resolve(), root):
        return link.resolve()
    if not link.is_symlink() and link.is_dir():
        return link.resolve()
    link.unlink(missing_ok=True)
    if user.switch and not _fits_inside(root, user):
        outside = _outside_folder(root, user)
        link.symlink_to(outside)
        return outside
    link.mkdir(mode=0o700)
    user.own(link)
    return link.resolve()


def _is_mine(outside: Path, root: Path) -> bool:
    """A copied project brings the link along: the folder behind it still belongs to the first project."""
    origin = outside / ORIGIN
    return origin.is_file() and origin.read_text().strip() == str(root.resolve())


def _fits_inside(root: Path, user: RunUser) -> bool:
    if len(os.fsencode(root.resolve() / "socket" / SOCKET_NAME)) > LONGEST_SOCKET_PATH:
        return False
    probe = root / "probe"
    try:
        probe.mkdir(mode=0o700, exist_ok=True)
        user.own(probe)
        return _can_write(probe, user)
    except OSError:
        return False
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def _can_write(folder: Path, user: RunUser) -> bool:
    """Only a try as that user knows: parents, access lists and network mounts each have a say."""
    asked = subprocess.run(
        ["test", "-w", str(folder), "-a", "-x", str(folder)],
        cwd="/",
        stdin=subprocess.DEVNULL,
        **user.popen_arguments(),  # type: ignore[call-overload]
    )
    return asked.returncode == 0


def _outside_folder(root: Path, user: RunUser) -> Path:
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:12]
    outside = SHARED_STATE / name
    SHARED_STATE.mkdir(mode=0o755, exist_ok=True)
    if outside.exists():
        # Its `.iparking` at this very path is gone, and its passwords with it: nobody can read this any more.
        kill_all(working_in(outside))
        shutil.rmtree(outside)
    outside.mkdir(mode=0o700)
    (outside / ORIGIN).write_text(f"{root.resolve()}\n")
    user.own(outside)
    return outside


def _socket_folder(root: Path, data: Path, user: RunUser) -> Path:
    place = root / "socket"
    inside = data / "socket"
    if len(os.fsencode(inside / SOCKET_NAME)) > LONGEST_SOCKET_PATH:
        inside = _short_folder(root, user)
    if not inside.exists():
        inside.mkdir(mode=0o700)
        user.own(inside)
    _check_private(inside, user)
    if not place.is_symlink() or place.readlink() != inside:
        place.unlink(missing_ok=True)
        place.symlink_to(inside)
    return inside


def _short_folder(root: Path, user: RunUser) -> Path:
    """A folder for the socket of a project with a long path; /run and /tmp lose it at a reboot, so it is remade."""
    name = f"iparking-{user.uid}-{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:12]}"
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or "/nonexistent")
    if runtime.is_dir() and os.access(runtime, os.W_OK) and not user.switch:
        return runtime / name
    return Path("/tmp") / name


def _check_private(folder: Path, user: RunUser) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user.uid or found.st_mode & 0o077:
        raise StackError(f"{folder} is not a private folder of {user.name}: remove it")
