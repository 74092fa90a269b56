"""The private servers: started, stopped, crashed, and refused with a reason."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis

from app.stack import Stack, StackError, postgres
from app.stack.folders import LONGEST_SOCKET_PATH, SHARED_STATE
from app.stack.ports import is_free
from app.stack.postgres import connection_settings, memory_settings
from app.stack.processes import wait_until, working_in
from tests.stack.conftest import as_root, make_home, open_place, remove_home


def running(stack: Stack) -> dict[str, int | None]:
    return {name: state["process"] for name, state in stack.status().items()}


def answer(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


@contextmanager
def listening(port: int) -> Iterator[None]:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # whoever had it before may just have closed it
        server.bind(("127.0.0.1", port))
        server.listen()
        yield


class TestStartAndStop:
    def test_start_twice_leaves_the_same_servers_running(self, stack: Stack) -> None:
        before = running(stack)
        stack.start()
        assert running(stack) == before
        assert None not in before.values()

    def test_stop_leaves_nothing_running_and_the_ports_free(self, stack: Stack) -> None:
        ports = [state["port"] for state in stack.status().values()]
        assert sorted(stack.stop()) == ["postgres", "redis"]
        assert working_in(stack.folders.data) == []
        assert all(is_free(port) for port in ports)
        assert stack.stop() == []

    def test_data_and_ports_survive_a_restart(self, stack: Stack) -> None:
        url = stack.create_database("kept")
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE fact (number int); INSERT INTO fact VALUES (7)")
        stack.stop()
        stack.start()
        assert answer(url, "SELECT number FROM fact") == 7

    def test_leaving_stops_the_servers_unless_another_uses_them(self, home: Path) -> None:
        with Stack(home, {}) as first:
            with Stack(home, {}):
                pass
            assert None not in running(first).values()
        assert running(first) == {"postgres": None, "redis": None}

    def test_servers_are_durable_utf8_and_only_on_loopback(self, stack: Stack) -> None:
        url = stack.create_database("kept")
        assert answer(url, "SHOW fsync") == "on"
        assert answer(url, "SHOW server_encoding") == "UTF8"
        assert answer(url, "SHOW listen_addresses") == "127.0.0.1"
        assert redis.Redis.from_url(stack.redis_url).config_get("bind") == {"bind": "127.0.0.1"}

    @pytest.mark.parametrize(
        ("gigabytes", "buffers", "cache"),
        [(0.5, "128MB", "256MB"), (2, "256MB", "682MB"), (24, "2048MB", "8192MB")],
    )
    def test_cache_grows_with_the_machine(self, gigabytes: float, buffers: str, cache: str) -> None:
        told = memory_settings(int(gigabytes * 2**30))
        assert told == {"shared_buffers": buffers, "effective_cache_size": cache}

    @pytest.mark.parametrize(("cores", "connections"), [(1, "200"), (4, "200"), (16, "680")])
    def test_connections_are_enough_for_a_process_a_core(self, cores: int, connections: str) -> None:
        assert connection_settings(cores) == {"max_connections": connections}

    @pytest.mark.parametrize(
        ("file", "text", "limit"),
        [("memory.max", "1073741824\n", 2**30), ("memory.max", "max\n", sys.maxsize),
         ("memory/memory.limit_in_bytes", "536870912\n", 2**29), (None, "", sys.maxsize)],
    )  # fmt: skip
    def test_container_may_have_less_memory_than_its_machine(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str | None, text: str, limit: int
    ) -> None:
        monkeypatch.setattr(postgres, "CGROUP", tmp_path)
        if file:
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).write_text(text)
        assert postgres.container_memory() == limit


class TestAccess:
    @pytest.fixture(scope="class")
    def stack(self) -> Iterator[Stack]:
        """One stack for all of these: they change nothing that another one looks at."""
        with open_place() as folder, Stack(make_home(folder), {}) as stack:
            yield stack

    def test_owner_is_no_superuser_and_has_postgis(self, stack: Stack) -> None:
        url = stack.create_database("city")
        assert answer(url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
        assert answer(url, "SELECT ST_AsText(ST_Point(105.85, 21.03))") == "POINT(105.85 21.03)"

    def test_reader_sees_what_the_owner_makes_and_changes_nothing(self, stack: Stack) -> None:
        with psycopg.connect(stack.create_database("read")) as connection:
            connection.execute("CREATE TABLE fact (number int); INSERT INTO fact VALUES (7)")
        reader = stack.reader_url("read")
        assert answer(reader, "SELECT number FROM fact") == 7
        with psycopg.connect(reader, autocommit=True) as connection:
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                connection.execute("DELETE FROM fact")
            connection.execute("SET default_transaction_read_only = off")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("DELETE FROM fact")

    def test_service_owns_nothing_and_makes_nothing(self, stack: Stack) -> None:
        stack.create_database("served")
        with psycopg.connect(stack.service_url("served"), autocommit=True) as connection:
            assert connection.info.user == "iparking_service"
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("CREATE TABLE fact (number int)")

    def test_nobody_comes_in_without_the_password(self, stack: Stack) -> None:
        ports = {name: state["port"] for name, state in stack.status().items()}
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(f"postgresql://postgres@127.0.0.1:{ports['postgres']}/postgres")
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=ports["redis"]).ping()

    def test_passwords_lie_in_a_closed_file_and_in_no_status(self, stack: Stack) -> None:
        file = stack.root / "stack.json"
        kept = json.loads(file.read_text())
        assert file.stat().st_mode & 0o077 == 0
        status = json.dumps(stack.status())
        assert all(secret not in status for secret in [*kept["passwords"].values(), kept["redis_password"]])

    def test_fresh_database_is_empty_and_a_standing_one_is_kept(self, stack: Stack) -> None:
        url = stack.create_database("demo")
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE fact (number int)")
        stack.create_database("demo")
        assert answer(url, "SELECT to_regclass('fact')::text") == "fact"
        stack.create_database("demo", fresh=True)
        assert answer(url, "SELECT to_regclass('fact')::text") is None

    @pytest.mark.parametrize("name", ["", "Demo", "demo; DROP TABLE x", "1st", "x" * 64])
    def test_odd_name_of_a_database_is_refused(self, stack: Stack, name: str) -> None:
        with pytest.raises(StackError):
            stack.create_database(name)


class TestGivenServers:
    def test_servers_of_the_environment_are_used_and_not_stopped(self, stack: Stack, open_folder: Path) -> None:
        given = {"IPARKING_DATABASE_URL": stack.admin_url(), "IPARKING_REDIS_URL": stack.redis_url}
        with Stack(open_folder / "other", given) as other:
            assert other.database_url() == stack.admin_url()
            url = other.create_database("made_there")
            assert answer(url, "SELECT current_database()") == "made_there"
            assert answer(other.reader_url("made_there"), "SHOW default_transaction_read_only") == "on"
        assert None not in running(stack).values()
        assert not (open_folder / "other" / "data").exists()

    def test_owner_of_the_tables_may_be_another_than_the_service(self, open_folder: Path) -> None:
        given = {
            "IPARKING_DATABASE_URL": "postgresql://service@db/iparking",
            "IPARKING_OWNER_DATABASE_URL": "postgresql://owner@db/iparking",
            "IPARKING_REDIS_URL": "redis://cache/0",
        }
        other = Stack(open_folder / "other", given)
        assert other.database_url("demo") == "postgresql://owner@db/demo"
        assert other.service_url("demo") == "postgresql://service@db/demo"
        alone = Stack(open_folder / "other", {**given, "IPARKING_OWNER_DATABASE_URL": ""})
        assert alone.service_url() == alone.database_url() == "postgresql://service@db/iparking"

    def test_passwords_that_an_older_version_did_not_make_are_added(self, open_folder: Path) -> None:
        file = open_folder / "stack.json"
        file.write_text('{"passwords": {"postgres": "kept"}}')
        stack = Stack(open_folder, {})
        assert stack.admin_url().startswith("postgresql://postgres:kept@")
        assert "iparking_service" in stack.service_url() and stack.service_url() == Stack(open_folder, {}).service_url()

    def test_server_that_lets_nobody_make_databases_is_named(self, stack: Stack, open_folder: Path) -> None:
        given = {"IPARKING_DATABASE_URL": stack.create_database("city")}
        with pytest.raises(StackError, match="IPARKING_DATABASE_URL: permission denied to create database"):
            Stack(open_folder / "other", given).create_database("more")


class TestFailures:
    @pytest.mark.parametrize(("name", "what"), [("postgres", "PostgreSQL"), ("redis", "Redis")])
    def test_taken_port_is_named_with_its_holder_and_a_remedy(self, home: Path, name: str, what: str) -> None:
        stack = Stack(home, {})
        with listening(stack.status()[name]["port"]), pytest.raises(StackError) as refused:
            stack.start()
        assert f"of the private {what} is taken by" in str(refused.value)
        assert f"(process {os.getpid()})" in str(refused.value)
        assert f"{name}_port in {home}/stack.json" in str(refused.value)

    def test_initdb_that_was_cut_off_is_done_again(self, home: Path) -> None:
        stack = Stack(home, {})
        unfinished = stack.folders.data / "postgres.unfinished"
        unfinished.mkdir()
        (unfinished / "PG_VERSION").write_text("15\n")
        stack.start()
        assert not unfinished.exists()

    def test_folder_that_holds_no_cluster_is_left_alone_and_named(self, home: Path) -> None:
        stack = Stack(home, {})
        (stack.postgres.data / "base").mkdir(parents=True)
        with pytest.raises(StackError, match="postgres is not a whole PostgreSQL data folder: remove it"):
            stack.start()
        assert (stack.postgres.data / "base").exists()

    def test_damaged_cluster_ends_in_the_servers_own_reason(self, stack: Stack) -> None:
        stack.stop()
        (stack.postgres.data / "global" / "pg_control").unlink()
        with pytest.raises(StackError, match=r"PostgreSQL does not start: .*pg_control.*No such file") as refused:
            stack.start()
        assert "\n" not in str(refused.value)
        assert working_in(stack.folders.data / "postgres") == []

    def test_cluster_of_another_version_is_named(self, stack: Stack) -> None:
        stack.stop()
        (stack.postgres.data / "PG_VERSION").write_text("9.6\n")
        with pytest.raises(StackError, match=r"made by PostgreSQL 9\.6"):
            stack.start()

    def test_full_disk_is_said_in_one_line_and_leaves_no_half_cluster(self, open_folder: Path) -> None:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", open_folder]).returncode:
            pytest.skip("only who may mount can make a small disk")
        try:
            open_folder.chmod(0o755)
            stack = Stack(make_home(open_folder), {})
            with pytest.raises(StackError, match="the disk is full") as refused:
                stack.start()
            assert "\n" not in str(refused.value)
            assert list(stack.folders.data.glob("postgres*")) == []
        finally:
            subprocess.run(["umount", open_folder], check=True)


class TestCrashes:
    def test_killed_server_is_seen_and_recovers_what_was_committed(self, stack: Stack) -> None:
        url = stack.create_database("kept")
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE fact (number int); INSERT INTO fact VALUES (7)")
        process = stack.postgres.process()
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        assert wait_until(lambda: running(stack)["postgres"] is None, 5)
        stack.start()
        assert answer(url, "SELECT number FROM fact") == 7

    def test_killed_redis_is_seen_and_starts_again(self, stack: Stack) -> None:
        process = stack.redis.process()
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        assert wait_until(lambda: running(stack)["redis"] is None, 5)
        stack.start()
        assert redis.Redis.from_url(stack.redis_url).ping()

    def test_pid_file_that_names_a_stranger_does_not_stop_a_start(self, stack: Stack) -> None:
        stack.stop()
        with subprocess.Popen(["sleep", "60"], **stack.folders.user.popen_arguments()) as stranger:
            lines = [
                str(stranger.pid),
                str(stack.postgres.data),
                "1",
                str(stack.postgres.port),
                "",
                "127.0.0.1",
                "",
                "",
            ]
            (stack.postgres.data / "postmaster.pid").write_text("\n".join(lines))
            assert running(stack)["postgres"] is None
            stack.start()
            assert running(stack)["postgres"] not in (None, stranger.pid)
            assert stranger.poll() is None
            stranger.kill()


class TestFolders:
    @as_root
    def test_servers_do_not_run_as_root(self, stack: Stack) -> None:
        for pid in running(stack).values():
            assert Path(f"/proc/{pid}").stat().st_uid != 0

    @as_root
    def test_closed_parent_moves_the_data_to_a_linked_folder(self, open_folder: Path) -> None:
        open_folder.chmod(0o700)
        home = make_home(open_folder)
        try:
            with Stack(home, {}) as stack:
                assert (home / "data").readlink().parent == SHARED_STATE
                assert stack.folders.sockets.is_relative_to(SHARED_STATE)
                assert answer(stack.create_database("city"), "SELECT 1") == 1
        finally:
            remove_home(home)

    def test_long_path_has_its_socket_elsewhere(self, open_folder: Path) -> None:
        home = make_home(open_folder / ("x" * 60) / ("y" * 60))
        try:
            with Stack(home, {}) as stack:
                sockets = list(stack.folders.sockets.glob(".s.PGSQL.*[0-9]"))
                assert len(sockets) == 1
                assert len(os.fsencode(sockets[0])) <= LONGEST_SOCKET_PATH
                assert (home / "socket").resolve() == stack.folders.sockets
        finally:
            remove_home(home)

    @as_root
    def test_copied_project_gets_data_of_its_own(self, open_folder: Path) -> None:
        open_folder.chmod(0o700)
        home = make_home(open_folder / "first")
        copied = open_folder / "second" / ".iparking"
        try:
            data = Stack(home, {}).folders.data
            shutil.copytree(home, copied, symlinks=True)
            assert Stack(copied, {}).folders.data != data
            assert Stack(home, {}).folders.data == data
        finally:
            remove_home(home)
            remove_home(copied)

    @as_root
    def test_folder_of_somebody_else_is_refused(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 65534)
        with pytest.raises(StackError, match="belongs to root"):
            Stack(home, {})
