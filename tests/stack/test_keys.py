"""keys.json: one key a role, many for simulated drivers."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.stack import StackError
from app.stack.keys import ROLES, write_keys


def test_file_holds_a_key_for_each_role_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys.json")
    assert set(keys) == set(ROLES)
    assert len(set(keys.values())) == len(ROLES)
    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600


def test_open_file_is_closed(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    write_keys(file)
    file.chmod(0o644)
    write_keys(file)
    assert file.stat().st_mode & 0o777 == 0o600


@given(st.lists(st.integers(0, 40), max_size=6))
def test_keys_that_were_handed_out_stay(asked: list[int]) -> None:
    with TemporaryDirectory() as folder:
        keys = write_keys(Path(folder) / "keys.json")
        for drivers in asked:
            more = write_keys(Path(folder) / "keys.json", drivers)
            assert {role: more[role] for role in ROLES} == {role: keys[role] for role in ROLES}
            assert more.get("drivers", [])[: len(keys.get("drivers", []))] == keys.get("drivers", [])
            keys = more
        assert len(keys.get("drivers", [])) == max(asked, default=0)
        assert len(set(keys.get("drivers", []))) == len(keys.get("drivers", []))


@pytest.mark.parametrize("content", ["{", "[]", '"key"'])
def test_damaged_file_is_named_and_kept(tmp_path: Path, content: str) -> None:
    (tmp_path / "keys.json").write_text(content)
    with pytest.raises(StackError, match=r"keys\.json .*: remove it"):
        write_keys(tmp_path / "keys.json")
    assert (tmp_path / "keys.json").read_text() == content
